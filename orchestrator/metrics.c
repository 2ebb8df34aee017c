/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * /metrics and /healthz on a loopback address, by libmicrohttpd.
 *
 * Overview.  The library's own epoll descriptor is watched by our loop, which gives it its turns. A scrape is
 * suspended, the switch is asked for its status, and the scrape goes on when the answer is there.
 *
 * Life-cycle of a scrape: asked (suspended; the switch's answer is awaited) -> answered (resumed) -> sent, freed. Where
 * the service ends meanwhile the switch's connection ends first, which answers all scrapes.
 *
 * Concurrency.  The orchestrator's loop, one thread.
 *
 * Limits.  METRICS_CONNECTIONS at a time, METRICS_SECONDS without a byte.
 */

#include <arpa/inet.h>
#include <errno.h>
#include <microhttpd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "openmetrics.h"
#include "orchestrator.h"

#define METRICS_CONNECTIONS 16u
#define METRICS_SECONDS 10u
#define TURN_MS 1000 /* idle connections are looked at this often */
#define ANSWER_MS 5000

struct metrics {
    struct MHD_Daemon *daemon;
    uv_poll_t poll;
    uv_timer_t timer;
    unsigned handles; /* not closed yet */
};

struct scrape {
    struct orchestrator *o;
    struct MHD_Connection *connection;
    enum metrics_format format;
    char *text; /* NULL: the switch does not answer */
    bool asked;
};

static enum MHD_Result respond(struct MHD_Connection *connection, unsigned status, const char *type, const char *text)
{
    struct MHD_Response *response =
        MHD_create_response_from_buffer(strlen(text), (void *)(uintptr_t)text, MHD_RESPMEM_MUST_COPY);
    if (!response)
        return MHD_NO;
    MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, type);
    enum MHD_Result result = MHD_queue_response(connection, status, response);
    MHD_destroy_response(response);
    return result;
}

static enum MHD_Result say(struct MHD_Connection *connection, unsigned status, const char *text)
{
    return respond(connection, status, "text/plain; charset=utf-8", text);
}

static void on_status(void *user, const struct rpc_error *error, const struct wire_value *result)
{
    struct scrape *scrape = user;
    json_t *status = error ? NULL : wire_to_json(result);
    scrape->text = status ? openmetrics_text(status, scrape->format) : NULL;
    json_decref(status);
    MHD_resume_connection(scrape->connection);
    if (scrape->o->metrics) /* the loop has no event for that */
        MHD_run(scrape->o->metrics->daemon);
}

static enum metrics_format wanted(struct MHD_Connection *connection)
{
    const char *accept = MHD_lookup_connection_value(connection, MHD_HEADER_KIND, MHD_HTTP_HEADER_ACCEPT);
    return accept && strstr(accept, "application/openmetrics-text") ? METRICS_OPEN : METRICS_TEXT;
}

static enum MHD_Result on_request(void *user, struct MHD_Connection *connection, const char *url, const char *method,
                                  const char *version, const char *upload, size_t *upload_bytes, void **own)
{
    static const char *const types[] = {[METRICS_TEXT] = "text/plain; version=0.0.4; charset=utf-8",
                                        [METRICS_OPEN] = "application/openmetrics-text; version=1.0.0; charset=utf-8"};
    struct orchestrator *o = user;
    struct scrape *scrape = *own;
    (void)version;
    (void)upload;
    (void)upload_bytes;
    if (!scrape) { /* the headers have come */
        *own = scrape = calloc(1, sizeof(*scrape));
        return scrape ? MHD_YES : MHD_NO;
    }
    if (strcmp(method, "GET") != 0 && strcmp(method, "HEAD") != 0)
        return say(connection, MHD_HTTP_METHOD_NOT_ALLOWED, "expected GET\n");
    bool serves = o->sw && (o->phase == PHASE_RUNNING || o->phase == PHASE_FINISHING);
    if (strcmp(url, "/healthz") == 0)
        return say(connection, serves ? MHD_HTTP_OK : MHD_HTTP_SERVICE_UNAVAILABLE, serves ? "ok\n" : "not running\n");
    if (strcmp(url, "/metrics") != 0)
        return say(connection, MHD_HTTP_NOT_FOUND, "expected /metrics or /healthz\n");
    if (scrape->asked && scrape->text)
        return respond(connection, MHD_HTTP_OK, types[scrape->format], scrape->text);
    if (scrape->asked || !o->sw)
        return say(connection, MHD_HTTP_SERVICE_UNAVAILABLE, "the switch does not answer\n");
    *scrape = (struct scrape){.o = o, .connection = connection, .format = wanted(connection), .asked = true};
    MHD_suspend_connection(connection);
    rpc_request(o->sw, "status", NULL, ANSWER_MS, on_status, scrape);
    return MHD_YES;
}

static void on_sent(void *user, struct MHD_Connection *connection, void **own, enum MHD_RequestTerminationCode how)
{
    struct scrape *scrape = *own;
    (void)user;
    (void)connection;
    (void)how;
    if (scrape)
        free(scrape->text);
    free(scrape);
    *own = NULL;
}

static void on_ready(uv_poll_t *poll, int status, int events)
{
    (void)status;
    (void)events;
    MHD_run(((struct metrics *)poll->data)->daemon);
}

static void on_turn(uv_timer_t *timer)
{
    MHD_run(((struct metrics *)timer->data)->daemon);
}

int metrics_listen(struct orchestrator *o, struct sm_errbuf *error)
{
    const struct service_metrics *at = &o->service.metrics;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(at->port), .sin_addr = {at->address}};
    if (at->port == 0)
        return 0;
    struct metrics *metrics = calloc(1, sizeof(*metrics));
    if (metrics)
        metrics->daemon = MHD_start_daemon(
            MHD_USE_EPOLL | MHD_ALLOW_SUSPEND_RESUME, 0, NULL, NULL, on_request, o, MHD_OPTION_SOCK_ADDR,
            (struct sockaddr *)&address, MHD_OPTION_NOTIFY_COMPLETED, on_sent, NULL, MHD_OPTION_CONNECTION_LIMIT,
            METRICS_CONNECTIONS, MHD_OPTION_CONNECTION_TIMEOUT, METRICS_SECONDS, MHD_OPTION_END);
    const union MHD_DaemonInfo *info =
        metrics && metrics->daemon ? MHD_get_daemon_info(metrics->daemon, MHD_DAEMON_INFO_EPOLL_FD) : NULL;
    if (!info) {
        snprintf(error->text, sizeof(error->text), "metrics: cannot listen on %s:%u: %s", at->text, at->port,
                 strerror(errno));
        free(metrics);
        return SM_E_IO;
    }
    uv_poll_init(o->loop, &metrics->poll, info->epoll_fd);
    uv_timer_init(o->loop, &metrics->timer);
    metrics->poll.data = metrics->timer.data = metrics;
    metrics->handles = 2;
    uv_poll_start(&metrics->poll, UV_READABLE, on_ready);
    uv_timer_start(&metrics->timer, on_turn, TURN_MS, TURN_MS);
    o->metrics = metrics;
    return 0;
}

static void on_closed(uv_handle_t *handle)
{
    struct metrics *metrics = handle->data;
    if (--metrics->handles > 0)
        return;
    MHD_stop_daemon(metrics->daemon);
    free(metrics);
}

void metrics_close(struct orchestrator *o)
{
    struct metrics *metrics = o->metrics;
    if (!metrics)
        return;
    o->metrics = NULL;
    uv_close((uv_handle_t *)&metrics->poll, on_closed);
    uv_close((uv_handle_t *)&metrics->timer, on_closed);
}
