/*
 * rule_text.h
 *		Names in the texts of rules, kept for the session. For decide/rule.c.
 */
#ifndef CS_RULE_TEXT_H
#define CS_RULE_TEXT_H

#include "cs_ext.h"

/* Before many texts are compiled: names given before may go. */
extern void cs_begin_rule_texts(void);

/* The names (char *) in a text that is kept; false: it is not. */
extern bool cs_rule_text_names(const char *text, List **names);
extern void cs_keep_rule_text(const char *text, List *names);

#endif /* CS_RULE_TEXT_H */
