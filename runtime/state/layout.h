/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef SM_STATE_LAYOUT_H
#define SM_STATE_LAYOUT_H

/*
 * What the fields of a class say of its records: whether these can be copied by them, and how a record of one layout
 * becomes one of another. Pure functions over struct state_class.
 */

#include "state/state.h"

/* Bytes between two fields that a compiler's padding explains; more is state that nobody declared. */
#define LAYOUT_PADDING_MAX 7u

struct layout_range {
    uint32_t offset, length;
};

/* Whether a field's size suits its type. */
bool layout_field_sound(uint8_t type, uint16_t size);

/* The bytes of a record that belong to no field, in order; returns how many ranges. */
unsigned layout_gaps(const struct state_class *cls, struct layout_range gaps[SM_MAX_FIELDS + 1]);

/* How records of the class are copied, by what it declares; `callbacks`: it has encode and decode. */
enum class_copy layout_copy(const struct state_class *cls, bool callbacks);

/* Why a class cannot be copied: one line that names it. Only where cls->copy is CLASS_NOT_COPIED. */
void layout_why_not(const struct state_class *cls, struct sm_errbuf *error);

/* Whether records of both have the same bytes. */
bool layout_equal(const struct state_class *a, const struct state_class *b);

/*
 * Whether records of one layout can become those of another field by field: fields of one name have types of one family
 * (whole numbers and times; floating point; each of the others alone) and one scale. SM_E_CONFLICT: *error names the
 * field that does not.
 */
int layout_convertible(const struct state_class *from, const struct state_class *to, struct sm_errbuf *error);

/* Why addresses of code in the records of one are none in those of the other; NULL: they are, or there are none. */
const char *layout_other_code(const struct state_class *a, const struct state_class *b);

/*
 * Convert a record: fields of a name that `from` has not stay as they are in `new` (zero), those that `to` has not are
 * left out. SM_E_LIMIT: *field is the one whose value does not fit.
 */
int layout_convert(const struct state_class *from, const uint8_t *old, const struct state_class *to, uint8_t *new,
                   const char **field);

#endif
