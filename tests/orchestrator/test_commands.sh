#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# smctl and sm-orchestrator against a switch that only speaks the protocol: exit statuses, lines, reports.
# usage: test_commands.sh SMCTL ORCHESTRATOR FAKE_SWITCH
set -u
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cp "$1" "$dir/smctl" && cp "$2" "$dir/sm-orchestrator" && cp "$3" "$dir/sm-switch" || exit 1
cd "$dir" || exit 1
export SPLITMERGE_RUN=$dir/run
unset FAKE
failures=0

# expect STATUS PATTERN COMMAND...: the exit status, and a pattern that standard output and error together match
expect() {
    local status=$1 pattern=$2 output got
    shift 2
    output=$("$@" 2>&1)
    got=$?
    if [ $got -ne "$status" ] || ! grep -Eq -- "$pattern" <<<"$output"; then
        echo "FAILED: $* (FAKE=${FAKE-})"
        echo "  expected $status and /$pattern/, got $got and:"
        sed 's/^/  /' <<<"$output"
        failures=$((failures + 1))
    fi
}

service() {
    cat <<EOF
service: $1
middlebox: {exec: ./sm-switch, args: [$2]}
replicas: {start: ${3-1}}
ports: {in: {pcap: a.pcap}, out: {pcap: b.pcap}}
EOF
}

service edge --replica >s.yaml
service other --replica 2 >other.yaml
service early --early >early.yaml
service Bad --replica >bad.yaml
timeout=20
smctl="timeout -k 5 $timeout ./smctl"

# Usage, before anything runs.
expect 2 'usage: smctl' $smctl
expect 0 'rebalance' $smctl --help
expect 0 '^smctl [0-9]' $smctl --version
expect 2 "unknown command 'stauts', did you mean 'status'" $smctl stauts
expect 3 'no service is running' $smctl status
expect 3 "service 'edge' is not running" $smctl status --service edge
expect 2 'service: expected' $smctl status --service Edge
expect 3 '^\{"schema":1,"error":\{"code":3,"message":"no service is running"\}\}$' $smctl status --json
expect 2 'expected: smctl scale N' $smctl scale
expect 2 'expected: smctl merge R --into R2' $smctl merge r1
expect 2 'timeout: expected a time' $smctl scale 2 --timeout 5
expect 2 'bad.yaml:1: service: expected' $smctl run bad.yaml
expect 2 'none.yaml: No such file' $smctl run none.yaml

# Whole runs.
expect 0 '^$' $smctl run s.yaml --report r.json
expect 0 '"exit": 0' cat r.json
expect 1 "middlebox './sm-switch' \(replica r1\) exited with status 3 before it was ready" $smctl run early.yaml
cat >events <<EOF
packet=10 split r1          # r2
packet=10 scale 4
packet=20 merge r2 --into r1
packet=30 move tcp dst port 1001 --to r3
packet=40 drain r1
packet=1000 rebalance
EOF
expect 0 '^$' $smctl run s.yaml --events events --report r.json
expect 0 '"line": 6' cat r.json
expect 1 '^$' grep 'not reached' r.json
for i in 1 2 3 4; do echo "packet=1 rebalance"; done >same
expect 0 '^$' $smctl run s.yaml --events same
echo 'packet=1001 scale 2' >late
expect 1 'event of line 1 \(scale 2\) was not reached' $smctl run s.yaml --events late
echo 'packet=5 scale 9' >refused
expect 1 'scale 9\) was refused: scale: expected 1 to 8 replicas, got 9' $smctl run s.yaml --events refused
echo 'packet=5 kill any' >kill
expect 0 'r1 was killed by signal 9; the others take over, a new one is started' $smctl run s.yaml --events kill
echo 'packet=5 kil any' >wrong
expect 2 'wrong:1: expected scale' $smctl run s.yaml --events wrong
FAKE=broken expect 1 'invariant ordered: broken: packet 7' $smctl run s.yaml
FAKE=lossy expect 1 'packets in and generated are not' $smctl run s.yaml
FAKE=die expect 1 'sm-switch was killed by signal 9|the switch is gone' $smctl run s.yaml
FAKE=abandon expect 1 'was abandoned: .* the hold is full' $smctl run s.yaml --events events
FAKE=busy expect 1 'was failed: the switch is busy' $smctl run s.yaml --events events

# until_answered SERVICE: there is an orchestrator, and it knows where the service is
until_answered() {
    for _ in $(seq 100); do
        ./smctl status --service "$1" >status 2>&1 && return
        sleep 0.05
    done
    echo "FAILED: $1 does not answer"
    cat log status
    failures=$((failures + 1))
}

# until_status PATTERN SERVICE [N]: it says so, N times
until_status() {
    for _ in $(seq 200); do
        ./smctl status --json --service "$2" >status 2>&1
        [ "$(grep -c "$1" status)" -ge "${3-1}" ] && return
        sleep 0.05
    done
    echo "FAILED: no $1"
    cat log status
    failures=$((failures + 1))
}

# A service that runs on.
start() {
    FAKE=$1 $smctl run "$2" >log 2>&1 &
    running=$!
    until_answered "$3"
}

start endless s.yaml edge
expect 1 'service edge is already running \(pid' $smctl run s.yaml
expect 0 '"limits"' $smctl status --json
expect 0 '^r1 ' $smctl replicas
expect 0 '^tokens +strong_counter +12$' $smctl shared
expect 0 '\(gone\) +\+7 -5$' $smctl shared
expect 0 '"kind": "strong_counter"' $smctl shared --json
expect 2 'expected: smctl shared' $smctl shared tokens
expect 3 'exchanges nothing with other hosts' $smctl peers
expect 3 'exchanges nothing with other hosts' $smctl peers --json remove 3
expect 2 'expected: smctl peers' $smctl peers add 3
expect 2 'expected: smctl peers' $smctl peers remove 128
expect 0 'tcp 10.0.0.1:80 10.0.0.2:1001 .* bytes=42B' $smctl flows
expect 0 '^CLASS' $smctl flows udp
expect 2 'syntax error' $smctl flows tcpp
expect 0 'owner +r1' $smctl flow show tcp 10.0.0.1:80 10.0.0.2:1001
expect 0 'key +tcp 10.0.0.1:80 10.0.0.2:1000' $smctl flow show port 1000
expect 1 'is 2 flows' $smctl flow show tcp
expect 1 'no flow is' $smctl flow show tcp 10.0.0.1:80 10.0.0.2:1002
expect 0 'REPLICA' $smctl top
expect 0 'scale 3: 10922 shards' $smctl scale 3
expect 0 '"completed": 2731' $smctl split r1 --json
expect 0 'merge r4 into r1' $smctl merge r4 --into r1
expect 0 'move to r2: 1 shards' $smctl move tcp port 1000 --to r2
expect 0 'move to r2: 101 shards' $smctl move shards:1-100,200 --to r2
expect 3 'there is no replica r4' $smctl drain r4
expect 2 'expected a replica such as r1' $smctl drain 4
expect 2 'scale: expected 1 to 8 replicas, got 9' $smctl scale 9
expect 0 'drain r2' $smctl drain r2
expect 0 'rebalance' $smctl rebalance
expect 0 '^$' $smctl stop
wait $running
expect 0 0 echo $?
expect 3 'no service is running' $smctl status

# A move that takes long: another operation is refused, or waits; and time runs out.
start endless,slow s.yaml edge
./smctl scale 2 >scaled 2>&1 &
scaling=$!
sleep 0.2
expect 4 'another operation \(scale\) is under way' $smctl rebalance
expect 0 'rebalance' $smctl rebalance --wait
wait $scaling
expect 0 'scale 2: 8192 shards' cat scaled
expect 5 "no answer to 'split' within 0.1 s" $smctl split r1 --timeout 100ms

kill -INT $(cat run/edge/lock)
wait $running

# The orchestrator dies while shards move, and the move ends while the next one asks where the service is.
start endless,slow,hasty s.yaml edge
./smctl scale 2 >scaled 2>&1 &
scaling=$!
sleep 0.2
kill -KILL $(pgrep -P $(cat run/edge/lock) -x sm-orchestrator)
wait $scaling
until_answered edge
expect 0 'rebalance' $smctl rebalance --wait --timeout 10s
expect 0 'scale 1: ' $smctl scale 1 --timeout 10s

kill -INT $(cat run/edge/lock)
wait $running

# The orchestrator dies, and with it a replica that it had just started: the next one does not wait for that.
start endless,vanished s.yaml edge
kill -KILL $(pgrep -P $(cat run/edge/lock) -x sm-orchestrator)
until_answered edge
expect 0 'scale 2: ' $smctl scale 2 --wait --timeout 15s

kill -INT $(cat run/edge/lock)
wait $running

# One that is killed again and again is started ever later, and that is said.
start endless s.yaml edge
for _ in $(seq 300); do
    grep -q 'started again in' log && break
    victim=$(pgrep -P $(cat run/edge/lock) -x sm-orchestrator) && kill -KILL $victim
done
expect 0 'sm-orchestrator was killed by signal 9: it is started again in 0.1 s' cat log
kill -INT $(cat run/edge/lock)
wait $running

# The orchestrator dies while shards move, after many events: what it had kept is long, and whole nevertheless.
{ seq -f 'packet=1 scale 9 # %g' 500; echo 'packet=1 scale 2'; } >long
FAKE=stuck $smctl run s.yaml --events long >log 2>&1 &
running=$!
until_status '"stage": "moving"' edge
kill -KILL $(pgrep -P $(cat run/edge/lock) -x sm-orchestrator)
until_answered edge
expect 0 'goes on with the service where it is: 2 replicas, an operation under way' cat log
./smctl status --json --service edge >status
expect 0 '' $smctl stop
kill -KILL $(grep -o '"pid": [0-9]*' status | grep -o '[0-9]*$')
wait $running

# The last replica dies while the switch waits for what it has: nobody will ever give that back.
start endless,stuck s.yaml edge
orchestrator=$(pgrep -P $(cat run/edge/lock) -x sm-orchestrator)
expect 0 '' $smctl stop
kill -KILL $(pgrep -P $orchestrator)
wait $running
expect 0 1 echo $?
expect 0 'replica r1 was killed by signal 9 before the end, and it was the last' cat log

# It has died before, and no other one lives.
start endless,stuck,barren s.yaml edge
kill -KILL $(pgrep -P $(pgrep -P $(cat run/edge/lock) -x sm-orchestrator))
until grep -q 'no replacement' log; do sleep 0.05; done
expect 0 '' $smctl stop
wait $running
expect 0 1 echo $?
expect 0 'while there was no replica|and it was the last' cat log

# Two replicas die at once, and one of their replacements before it is ready: they are all replaced nevertheless.
service four --replica 4 >four.yaml
start endless,frail four.yaml four
orchestrator=$(pgrep -P $(cat run/four/lock) -x sm-orchestrator)
kill -STOP $orchestrator
kill -KILL $(pgrep -P $orchestrator | head -2)
sleep 0.3
kill -CONT $orchestrator
until_status '"state": "ready"' four 4
until_status '"stage": null' four
kill -INT $(cat run/four/lock)
wait $running

# A replica comes that nobody asked for, and has to stay, as flows do: events go on.
service stays --replica 1 | sed 's/exec/strategy: new-flows-only, exec/' >stays.yaml
printf 'packet=1 scale 2\npacket=2 scale 3\n' >two
FAKE=slow $smctl run stays.yaml --events two >log 2>&1 &
running=$!
until_answered stays
SPLITMERGE_ATTACH=run/stays/attach.sock SPLITMERGE_REPLICA=r9 ./sm-switch --replica &
wait $running
expect 0 0 echo $?
wait

# What is left of an orchestrator that was killed has its socket for a while.
mkdir -p run/edge
python3 -c 'import socket, time
s = socket.socket(socket.AF_UNIX)
s.bind("run/edge/orchestrator.sock")
s.listen()
print(flush=True)
time.sleep(1)' >listens &
until [ -s listens ]; do sleep 0.05; done
expect 0 '^$' $smctl run s.yaml
wait

# Two at once.
start endless s.yaml edge
start endless other.yaml other
expect 2 'say which with --service: .*(edge, other|other, edge) are running' $smctl status
expect 0 'replicas +2 ' $smctl status --service other
expect 0 'replicas +2 ' $smctl status --socket run/other/orchestrator.sock
kill -INT $(cat run/other/lock)
wait $running
expect 0 0 echo $?

# Whoever is killed leaves nobody behind.
victim=$(cat run/edge/lock)
kill -KILL $victim
sleep 1
expect 3 'no service is running' $smctl status
for pid in $(pgrep -x 'sm-(switch|orchestrator)'); do
    [ "$(readlink /proc/$pid/cwd)" = "$dir" ] && { echo "FAILED: $pid is left"; failures=$((failures + 1)); }
done

[ $failures -eq 0 ]
