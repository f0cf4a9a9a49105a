# survival_r.R: what R's package survival (Debian r-cran-survival) says of two data sets, as SQL.
# test/pgtap/survival.sql runs it:
#   Rscript --vanilla test/lib/survival_r.R FOLDER_WITH_waltons_dataset.csv_AND_lung.csv
suppressMessages(library(survival))
folder <- commandArgs(TRUE)[1]
waltons <- read.csv(file.path(folder, "waltons_dataset.csv"))
lung <- read.csv(file.path(folder, "lung.csv"))
lung$entry <- (seq_len(nrow(lung)) * 37) %% lung$time # made up: seen from some day before the end
lung$ecog <- ifelse(is.na(lung$ph.ecog), "none", lung$ph.ecog)

number <- function(x) ifelse(is.na(x), "NULL", format(x, digits = 16, trim = TRUE, scientific = FALSE))
rows <- function(table, x) cat("INSERT INTO ", table, " VALUES\n\t", paste0("(", x, ")", collapse = ",\n\t"), ";\n", sep = "")
curve <- function(name, f) {
  rows("r_curve", sprintf("'%s', %d, %d, %d, %d, %s, %s, %s", name, f$time, f$n.risk, f$n.event, f$n.censor,
                          number(f$surv), number(f$lower), number(f$upper)))
  t <- summary(f, rmean = "individual")$table
  rows("r_mean", sprintf("'%s', %s, %s", name, number(t["median"]), number(t["rmean"])))
}
test <- function(name, d) {
  df <- sum(d$exp > 0) - 1
  rows("r_test", sprintf("'%s', %s, %d, %s", name, number(d$chisq), df,
                         format(pchisq(d$chisq, df, lower.tail = FALSE), digits = 16)))
}

cat("INSERT INTO r_version VALUES ('", as.character(getRversion()), "', '", as.character(packageVersion("survival")), "');\n", sep = "")
fit <- function(formula, data, confidence) survfit(formula, data, conf.type = "log-log", conf.int = confidence)
curve("waltons control", fit(Surv(T, E) ~ 1, waltons[waltons$group == "control", ], 0.95))
curve("waltons miR-137", fit(Surv(T, E) ~ 1, waltons[waltons$group != "control", ], 0.95))
curve("lung", fit(Surv(time, status) ~ 1, lung, 0.9))
curve("lung late", fit(Surv(entry, time, status) ~ 1, lung, 0.95))
test("waltons", survdiff(Surv(T, E) ~ group, waltons))
test("lung sex", survdiff(Surv(time, status) ~ sex, lung))
test("lung ecog", survdiff(Surv(time, status) ~ ecog, lung))
