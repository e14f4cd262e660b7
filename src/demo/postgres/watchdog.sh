# Runs one throw-away PostgreSQL for as long as the pipe on standard input stays open. Nothing is ever
# written to that pipe: its end says that the owner stopped us or died, and then server and folder go.
# Arguments: folder, initdb, postgres, "remove" or "keep"; the rest goes to postgres.
dir=$1 initdb=$2 postgres=$3 at_end=$4
shift 4
exec 3<&0 </dev/null >>"$dir/log" 2>&1

server='' stopping=''
trap 'stopping=yes; if [ -n "$server" ]; then kill -INT "$server"; fi' INT TERM HUP

"$initdb" -D "$dir/data" -U postgres --pwfile="$dir/pwfile" --encoding=UTF8 --locale=C \
    --auth=scram-sha-256 --no-sync 3<&-
made=$?
rm -f "$dir/pwfile"

if [ "$made" -eq 0 ] && [ -z "$stopping" ]; then
    "$postgres" -D "$dir/data" "$@" 3<&- &
    server=$!
    (
        trap - INT TERM HUP
        read -r _ <&3
        # Asked again each second: a signal that comes before the server listens for it is lost.
        for signal in INT INT INT INT INT QUIT QUIT KILL; do
            kill -"$signal" "$server" || exit
            sleep 1
        done
    ) &
    guard=$!
    # A trapped signal ends `wait` early, so ask until the server is really gone.
    while :; do
        wait "$server"
        kill -0 "$server" || break
    done
    kill "$guard"
fi

: >"$dir/ended"
# If it ended by itself, the owner still wants to read the log.
read -r _ <&3
if [ "$at_end" = remove ]; then
    cd / && rm -rf "$dir"
fi
