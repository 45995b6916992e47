// franz-go and sarama: every codec at every acks, read back by assignment of partitions; administration, and what must
// fail.
//
// Usage: check HOST:PORT HOST:PORT [planted]. The second broker creates no topics by itself. With planted two wrong
// expectations are to be caught instead.
package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

const (
	recordCount    = 60
	firstTimestamp = 1_700_000_000_000
	deadline       = 30 * time.Second
)

var codecs = map[string]kgo.CompressionCodec{
	"none":   kgo.NoCompression(),
	"gzip":   kgo.GzipCompression(),
	"snappy": kgo.SnappyCompression(),
	"lz4":    kgo.Lz4Compression(),
	"zstd":   kgo.ZstdCompression(),
}

// The last is franz-go's default.
var modes = map[string][]kgo.Opt{
	"acks0":      {kgo.RequiredAcks(kgo.NoAck()), kgo.DisableIdempotentWrite()},
	"acks1":      {kgo.RequiredAcks(kgo.LeaderAck()), kgo.DisableIdempotentWrite()},
	"idempotent": nil,
}

func records(topic string) []*kgo.Record {
	all := make([]*kgo.Record, recordCount)
	for number := range all {
		record := &kgo.Record{Topic: topic, Timestamp: time.UnixMilli(firstTimestamp + int64(number))}
		if number%7 != 0 {
			record.Key = fmt.Appendf(nil, "key-%d", number%5)
		}
		if number%11 != 0 {
			record.Value = []byte(strings.Repeat(fmt.Sprintf("%s %d ", topic, number), 20+number))
		}
		if number%2 == 1 {
			record.Headers = []kgo.RecordHeader{{Key: "number", Value: fmt.Append(nil, number)}, {Key: "null"}}
		}
		all[number] = record
	}
	return all
}

func produce(ctx context.Context, bootstrap, topic string, codec kgo.CompressionCodec, mode []kgo.Opt) error {
	options := append([]kgo.Opt{
		kgo.SeedBrokers(bootstrap),
		kgo.AllowAutoTopicCreation(),
		kgo.ProducerBatchCompression(codec),
		kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.ProducerLinger(50 * time.Millisecond),
	}, mode...)
	client, err := kgo.NewClient(options...)
	if err != nil {
		return err
	}
	defer client.Close()
	return client.ProduceSync(ctx, records(topic)...).FirstErr()
}

func consume(ctx context.Context, bootstrap string, topics []string) (map[string][]*kgo.Record, error) {
	assigned := make(map[string]map[int32]kgo.Offset)
	for _, topic := range topics {
		assigned[topic] = map[int32]kgo.Offset{0: kgo.NewOffset().AtStart()}
	}
	client, err := kgo.NewClient(kgo.SeedBrokers(bootstrap), kgo.ConsumePartitions(assigned))
	if err != nil {
		return nil, err
	}
	defer client.Close()
	read := make(map[string][]*kgo.Record)
	for count := 0; count < len(topics)*recordCount; {
		fetches := client.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			return nil, fmt.Errorf("%d records read: %w", count, err)
		}
		fetches.EachRecord(func(record *kgo.Record) {
			read[record.Topic] = append(read[record.Topic], record)
			count++
		})
	}
	return read, nil
}

// compare names the first difference.
func compare(topic string, read []*kgo.Record) error {
	if len(read) != recordCount {
		return fmt.Errorf("%s: %d records", topic, len(read))
	}
	for number, wanted := range records(topic) {
		found := read[number]
		same := found.Offset == int64(number) && found.Timestamp.Equal(wanted.Timestamp) &&
			bytes.Equal(found.Key, wanted.Key) && bytes.Equal(found.Value, wanted.Value) &&
			(found.Key == nil) == (wanted.Key == nil) && (found.Value == nil) == (wanted.Value == nil) &&
			fmt.Sprint(found.Headers) == fmt.Sprint(wanted.Headers)
		if !same {
			return fmt.Errorf("%s: record %d is %v", topic, number, found)
		}
	}
	return nil
}

var passed, failed int

// check counts one thing that is to hold; a failure is told, and the others go on.
func check(name string, err error) {
	if err == nil {
		passed++
		return
	}
	failed++
	fmt.Printf("FAILED %s: %v\n", name, err)
}

// same is nil where both print alike.
func same(found, wanted any) error {
	if fmt.Sprint(found) == fmt.Sprint(wanted) {
		return nil
	}
	return fmt.Errorf("%v instead of %v", found, wanted)
}

// is wants that error, of whatever depth.
func is(found, wanted error) error {
	if errors.Is(found, wanted) {
		return nil
	}
	return fmt.Errorf("%v instead of %v", found, wanted)
}

// franz writes and reads every topic of franz-go; the topics.
func franz(ctx context.Context, bootstrap string) []string {
	var topics []string
	for codec, compression := range codecs {
		for mode, options := range modes {
			topic := fmt.Sprintf("franz.%s.%s", codec, mode)
			check("franz-go writes "+topic, produce(ctx, bootstrap, topic, compression, options))
			topics = append(topics, topic)
		}
	}
	return topics
}

func readAll(ctx context.Context, bootstrap string, topics []string) {
	read, err := consume(ctx, bootstrap, topics)
	check("franz-go reads all", err)
	for _, topic := range topics {
		check("franz-go reads "+topic, compare(topic, read[topic]))
	}
}

func plant(ctx context.Context, bootstrap string) {
	topic := "planted"
	check("writes", produce(ctx, bootstrap, topic, kgo.NoCompression(), modes["acks1"]))
	read, err := consume(ctx, bootstrap, []string{topic})
	check("reads", err)
	check("planted: other records", compare("other", read[topic]))
	client, err := kgo.NewClient(kgo.SeedBrokers(bootstrap))
	check("connects", err)
	defer client.Close()
	_, err = kadm.NewClient(client).CreateTopic(ctx, 1, 1, nil, topic)
	check("planted: another error", is(err, kerr.InvalidPartitions))
}

func main() {
	bootstrap, strict := os.Args[1], os.Args[2]
	ctx, cancel := context.WithTimeout(context.Background(), 4*deadline)
	defer cancel()
	if len(os.Args) > 3 {
		plant(ctx, bootstrap)
	} else {
		topics := append(franz(ctx, bootstrap), writeSarama(bootstrap)...)
		readAll(ctx, bootstrap, topics)
		readSarama(bootstrap, topics)
		administerFranz(ctx, bootstrap, strict)
		administerSarama(bootstrap, strict)
	}
	fmt.Printf("go: %d checks passed, %d failed\n", passed, failed)
	if failed > 0 {
		os.Exit(1)
	}
}
