// Embed three texts through Redis and a worker, and print how near they are to each other.
//
//	go run . [redis://HOST:6379/0] [STREAM]
package main

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"log"
	"math"
	"os"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/vmihailenco/msgpack/v5"
)

const patience = 30 * time.Second

type question struct {
	Texts  []string `msgpack:"texts"`
	Prompt string   `msgpack:"prompt,omitempty"`
}

// What is not named here is skipped, as new fields must be.
type output struct {
	V         int    `msgpack:"v"`
	Dim       int    `msgpack:"dim"`
	Dtype     string `msgpack:"dtype"`
	Embedding []byte `msgpack:"embedding"`
}

func (o *output) vectors() ([][]float32, error) {
	if o.V != 1 {
		return nil, fmt.Errorf("version %d of the wire format is not known", o.V)
	}
	if o.Dtype != "<f4" || o.Dim < 1 || len(o.Embedding)%(4*o.Dim) != 0 {
		return nil, errors.New("start the worker with --dtype f4")
	}
	rows := make([][]float32, len(o.Embedding)/4/o.Dim)
	for i := range rows {
		rows[i] = make([]float32, o.Dim)
		for j := range rows[i] {
			bits := binary.LittleEndian.Uint32(o.Embedding[4*(i*o.Dim+j):])
			rows[i][j] = math.Float32frombits(bits)
		}
	}
	return rows, nil
}

func lastID(ctx context.Context, client *redis.Client, stream string) (string, error) {
	found, err := client.XRevRangeN(ctx, stream, "+", "-", 1).Result()
	if err != nil || len(found) == 0 {
		return "0-0", err
	}
	return found[0].ID, nil
}

func embed(client *redis.Client, stream string, asked question) ([][]float32, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	outputs, letters := stream+":embeddings", stream+":dlq"
	// Where to read from, before the question is asked: the answer may be quick.
	afterOutput, err := lastID(ctx, client, outputs)
	if err != nil {
		return nil, err
	}
	afterLetter, err := lastID(ctx, client, letters)
	if err != nil {
		return nil, err
	}
	body, err := msgpack.Marshal(asked)
	if err != nil {
		return nil, err
	}
	call := rand.Text() // the workers hand every field on, to outputs and dead letters
	sent, err := client.XAdd(ctx, &redis.XAddArgs{Stream: stream,
		Values: map[string]any{"correlation-id": call, "body": body}}).Result()
	if err != nil {
		return nil, err
	}
	// Done, or nobody waits for it any more.
	defer client.XDel(context.Background(), stream, sent)
	for {
		found, err := client.XRead(ctx, &redis.XReadArgs{Count: 100, Block: 500 * time.Millisecond,
			Streams: []string{outputs, letters, afterOutput, afterLetter}}).Result()
		if ctx.Err() != nil {
			return nil, fmt.Errorf("no answer within %v: is there a worker on %s?", patience, stream)
		}
		if err != nil && err != redis.Nil {
			return nil, err
		}
		for _, part := range found {
			for _, entry := range part.Messages {
				if part.Stream == letters {
					afterLetter = entry.ID
				} else {
					afterOutput = entry.ID
				}
				if entry.Values["correlation-id"] != call {
					continue
				}
				if part.Stream == letters {
					return nil, fmt.Errorf("%v: %v", entry.Values["_code"], entry.Values["_error"])
				}
				payload, _ := entry.Values["body"].(string)
				var answer output
				if err := msgpack.Unmarshal([]byte(payload), &answer); err != nil {
					return nil, err
				}
				return answer.vectors()
			}
		}
	}
}

func main() {
	args := append(os.Args[1:], []string{"redis://127.0.0.1:6379/0", "texts"}[len(os.Args)-1:]...)
	options, err := redis.ParseURL(args[0])
	if err != nil {
		log.Fatal(err)
	}
	client := redis.NewClient(options)
	defer client.Close()
	vectors, err := embed(client, args[1], question{Prompt: "sentence_similarity", Texts: []string{
		"The ferry leaves at seven.", "When does the boat go?", "Two eggs and some flour."}})
	if err != nil {
		log.Fatal(err)
	}
	for _, a := range vectors {
		for _, b := range vectors {
			var dot float32
			for i := range a {
				dot += a[i] * b[i]
			}
			fmt.Printf("%.4f ", dot)
		}
	}
	fmt.Println()
}
