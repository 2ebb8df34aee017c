/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef SM_BENCH_BENCH_H
#define SM_BENCH_BENCH_H

/*
 * The harness of sm-bench: samples, figures, and how they are reported.
 *
 * A figure is measured `repeat` times, each time beside its reference: machines are noisy, the two are slowed down
 * together, and their ratio is what repeats. What is reported is the median of the repetitions and their spread.
 */

#include <jansson.h>
#include <splitmerge/types.h>

#include "plot.h"

#define BENCH_MAX_REPEAT 99u
#define BENCH_MAX_FIGURES 160u
#define BENCH_MAX_PLOTS 12u

struct samples {
    double value[BENCH_MAX_REPEAT];
    unsigned count;
};

void samples_add(struct samples *samples, double value);

/* Of an even number of samples the mean of the middle two; 0 when there are none. */
double samples_median(const struct samples *samples);

/* (largest - smallest) / median; 0 when that says nothing. */
double samples_spread(const struct samples *samples);

/* The quotients a/b, repetition by repetition. The two have as many samples; b's are not 0. */
struct samples samples_ratio(const struct samples *a, const struct samples *b);

enum target_kind { TARGET_NONE, TARGET_AT_LEAST, TARGET_AT_MOST };

struct target {
    enum target_kind kind;
    double value;
};

bool target_met(const struct target *target, double value);

struct figure {
    const char *name; /* words; unit apart */
    const char *unit;
    struct samples ours;
    struct samples reference; /* none: the figure stands alone */
    struct target target;     /* of ours; */
    struct target ratio;      /* of ours / reference */
    char missing[96];         /* why there is no reference, in words: its target counts as missed */
};

struct bench_options {
    double seconds; /* of one measurement */
    unsigned repeat;
    uint32_t flows;
    uint64_t seed;
    const char *report; /* directory to write a page to; NULL: none */
    bool quick;
    bool json;
};

/* What one run has found. */
struct report {
    struct figure figures[BENCH_MAX_FIGURES];
    unsigned count;
    struct plot plots[BENCH_MAX_PLOTS];
    unsigned plot_count;
    json_t *parameters; /* what the experiments fixed themselves, by name */
};

struct figure *report_figure(struct report *report, const char *name, const char *unit);

/* A plot; curves, and how it is drawn, are the caller's to add. `x` and `y` say what the axes are. */
struct plot *report_plot(struct report *report, const char *name, const char *title, const char *x, const char *y);

/* What a figure's own target is held against: the median, or not a number, which meets none, if it was not measured. */
double report_judged(const struct figure *figure);

/* How many targets there are, and how many of them are met. */
unsigned report_met(const struct report *report, unsigned *targets);

void report_print(const struct report *report, const struct bench_options *options);
json_t *report_json(const struct report *report, const struct bench_options *options);

/* DIR/index.html (html.h) in options->report. 0; SM_E_IO: *error says what could not be written or drawn. */
int report_page(const struct report *report, const struct bench_options *options, struct sm_errbuf *error);

/* The experiments. 0, or an error: *error says why it could not be measured. */
typedef int experiment_fn(const struct bench_options *options, struct report *report, struct sm_errbuf *error);
experiment_fn bench_forward, bench_move, bench_failover, bench_library, bench_state, bench_coherent, bench_checkpoint,
    bench_limits, bench_network, bench_drl, bench_scale_out, bench_scale_in;

/* Clocks, ns, and cores. */
uint64_t bench_now(void);
uint64_t bench_thread_cpu(void);

/* Pin the calling thread to the first or the second (core 0, 1) of the cores the program may use. It takes turns there
 * as threads of a service do (arena/core.h), be it of ours or of a reference. */
void bench_pin(unsigned core);

/* Let it use all of them again. */
void bench_unpin(void);

/* Zeroed memory in huge pages, if there are any, as the arena's; the caller frees. NULL: out of memory. */
void *bench_memory(size_t bytes);

/* 0..count-1 in random order, by a seed that is not 0; the caller frees. NULL: out of memory. */
uint32_t *bench_shuffled(uint32_t count, uint64_t seed);

#endif
