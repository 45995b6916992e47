#!/usr/bin/env bash
built=$(dirname "$(readlink -f "$0")")/../target/release/ringlog
exec "${RINGLOG:-$([[ -x $built ]] && echo "$built" || echo ringlog)}" kafka dump-log "$@"
