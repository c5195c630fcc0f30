#!/bin/sh
# A task of the chaos run: task.sh LEDGER KIND. Writes that it starts, works for 0 to 2 s, writes that it ends, and with which code.
# Nothing of hq is asked but the names of the run; each line is one write to a file opened for appending.
number=${HQ_ARRAY_INDEX:-$HQ_JOB_ID}
who="$HQ_JOB_ID ${HQ_ARRAY_INDEX:--1} $HQ_ATTEMPT $HQ_HOST $$"
read -r now rest < /proc/uptime
echo "S $who $now" >> "$1"
echo "task $who was here" 2> /dev/null || : # its disk may be full: that is no fault of the task
tenths=$((number * 37 % 21))
sleep "$((tenths / 10)).$((tenths % 10))"
code=0
case $2 in
    some-fail) [ $((number % 5)) -ne 3 ] || code=3 ;;
    fails) code=4 ;;
    flaky) [ "$HQ_ATTEMPT" -ge 2 ] || code=9 ;;
esac
read -r now rest < /proc/uptime
echo "E $who $now $code" >> "$1"
exit $code
