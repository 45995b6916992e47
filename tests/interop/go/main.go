// franz-go: every codec at every acks, read back by direct assignment of partitions. Usage: check HOST:PORT
package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"strings"
	"time"

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

func run(bootstrap string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 3*deadline)
	defer cancel()
	var topics []string
	for codec, compression := range codecs {
		for mode, options := range modes {
			topic := fmt.Sprintf("franz.%s.%s", codec, mode)
			if err := produce(ctx, bootstrap, topic, compression, options); err != nil {
				return fmt.Errorf("%s: %w", topic, err)
			}
			topics = append(topics, topic)
		}
	}
	read, err := consume(ctx, bootstrap, topics)
	if err != nil {
		return err
	}
	for _, topic := range topics {
		if err := compare(topic, read[topic]); err != nil {
			return err
		}
	}
	fmt.Printf("franz-go read %d topics\n", len(topics))
	return nil
}

func main() {
	if err := run(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
