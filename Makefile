# cs_ext: customer success inside PostgreSQL
#
#   make && sudo make install          build and install
#   make installcheck                  regression tests against a running server
#   ./test/run                         everything, with servers of its own
#
# META.json is the one place that holds the version.

EXTENSION = cs_ext
EXTVERSION := $(shell sed -n 's/^  "version": "\(.*\)",/\1/p' META.json)

MODULE_big = cs_ext
OBJS = $(patsubst %.c,%.o,$(sort $(wildcard src/*/*.c)))

# The install script in reading order: what stands later may use what stands earlier.
SQL_PIECES = \
	schema \
	policy \
	period \
	source \
	watermark \
	refresh \
	progress \
	usage \
	seal \
	ledger \
	version \
	ledger_detail \
	metric \
	scorecard \
	rule \
	segment \
	alert \
	health \
	outbox \
	alert_segment \
	snapshot \
	segment_past \
	term \
	logo \
	churn \
	churn_method \
	churn_by \
	revenue \
	publish \
	summary \
	retention \
	ltv \
	history \
	backtest \
	rehearsal \
	renewal \
	target \
	reason \
	factor \
	check \
	job \
	uninstall \
	doctor \
	view \
	template \
	profile \
	validate \
	forms \
	grant

DATA = $(wildcard sql/cs_ext--*--*.sql)
DATA_built = cs_ext.control sql/cs_ext--$(EXTVERSION).sql
EXTRA_CLEAN = sql/cs_ext--$(EXTVERSION).sql cs_ext.control

REGRESS = $(sort $(basename $(notdir $(wildcard test/sql/*.sql))))
# pg_regress finds expected/ and writes results/ where it is called.
REGRESS_OPTS = --inputdir=test --load-extension=cs_ext

PG_CPPFLAGS = -I$(srcdir)/src -DCS_EXT_VERSION='"$(EXTVERSION)"'

PG_CONFIG ?= pg_config
PGXS := $(shell $(PG_CONFIG) --pgxs)
include $(PGXS)

cs_ext.control: cs_ext.control.in META.json
	sed 's/@VERSION@/$(EXTVERSION)/' $< > $@

sql/cs_ext--$(EXTVERSION).sql: $(SQL_PIECES:%=sql/%.sql) META.json
	cat $(SQL_PIECES:%=sql/%.sql) > $@

$(OBJS): $(wildcard src/*.h src/*/*.h)

install: install-control
install-control: cs_ext.control
	$(MKDIR_P) '$(DESTDIR)$(datadir)/extension'
	$(INSTALL_DATA) cs_ext.control '$(DESTDIR)$(datadir)/extension/'

format:
	clang-format -i $(wildcard src/*.h src/*/*.h src/*/*.c)
format-check:
	clang-format --dry-run --Werror $(wildcard src/*.h src/*/*.h src/*/*.c)

.PHONY: install-control format format-check
