package main

import (
	"bytes"
	"fmt"
	"strings"
	"time"

	"github.com/IBM/sarama"
)

var saramaCodecs = map[string]sarama.CompressionCodec{
	"none":   sarama.CompressionNone,
	"gzip":   sarama.CompressionGZIP,
	"snappy": sarama.CompressionSnappy,
	"lz4":    sarama.CompressionLZ4,
	"zstd":   sarama.CompressionZSTD,
}

func saramaConfig() *sarama.Config {
	config := sarama.NewConfig()
	config.Version = sarama.MaxVersion
	config.Producer.Return.Successes = true
	config.Producer.Partitioner = sarama.NewManualPartitioner
	config.Producer.RequiredAcks = sarama.WaitForAll
	config.Producer.Retry.Max = 1
	config.Metadata.Retry.Max = 1
	return config
}

func saramaMessages(topic string) []*sarama.ProducerMessage {
	var messages []*sarama.ProducerMessage
	for _, record := range records(topic) {
		message := &sarama.ProducerMessage{Topic: topic, Timestamp: record.Timestamp}
		if record.Key != nil {
			message.Key = sarama.ByteEncoder(record.Key)
		}
		if record.Value != nil {
			message.Value = sarama.ByteEncoder(record.Value)
		}
		for _, header := range record.Headers {
			message.Headers = append(message.Headers, sarama.RecordHeader{Key: []byte(header.Key), Value: header.Value})
		}
		messages = append(messages, message)
	}
	return messages
}

func sendSarama(bootstrap string, config *sarama.Config, messages []*sarama.ProducerMessage) error {
	producer, err := sarama.NewSyncProducer([]string{bootstrap}, config)
	if err != nil {
		return err
	}
	defer producer.Close()
	return producer.SendMessages(messages)
}

func writeSarama(bootstrap string) []string {
	var topics []string
	for codec, compression := range saramaCodecs {
		for _, mode := range []string{"acks0", "acks1", "idempotent"} {
			config := saramaConfig()
			config.Producer.Compression = compression
			switch mode {
			case "acks0":
				config.Producer.RequiredAcks = sarama.NoResponse
			case "acks1":
				config.Producer.RequiredAcks = sarama.WaitForLocal
			case "idempotent":
				config.Producer.Idempotent = true
				config.Net.MaxOpenRequests = 1
			}
			topic := fmt.Sprintf("sarama.%s.%s", codec, mode)
			check("sarama writes "+topic, sendSarama(bootstrap, config, saramaMessages(topic)))
			topics = append(topics, topic)
		}
	}
	return topics
}

func readSarama(bootstrap string, topics []string) {
	consumer, err := sarama.NewConsumer([]string{bootstrap}, saramaConfig())
	check("sarama connects", err)
	defer consumer.Close()
	for _, topic := range topics {
		check("sarama reads "+topic, compareSarama(consumer, topic))
	}
}

func compareSarama(consumer sarama.Consumer, topic string) error {
	partition, err := consumer.ConsumePartition(topic, 0, sarama.OffsetOldest)
	if err != nil {
		return err
	}
	defer partition.Close()
	late := time.After(deadline)
	for number, wanted := range records(topic) {
		select {
		case found := <-partition.Messages():
			same := found.Offset == int64(number) && found.Timestamp.Equal(wanted.Timestamp) &&
				bytes.Equal(found.Key, wanted.Key) && bytes.Equal(found.Value, wanted.Value) &&
				len(found.Headers) == len(wanted.Headers)
			if !same {
				return fmt.Errorf("record %d is %v", number, found)
			}
		case <-late:
			return fmt.Errorf("%d records came", number)
		}
	}
	return nil
}

func saramaSetting(admin sarama.ClusterAdmin, topic, name string) string {
	found, err := admin.DescribeConfig(sarama.ConfigResource{
		Type: sarama.TopicResource, Name: topic, ConfigNames: []string{name},
	})
	if err != nil || len(found) != 1 {
		return fmt.Sprint(found, err)
	}
	return found[0].Value
}

func administerSarama(bootstrap, strict string) {
	admin, err := sarama.NewClusterAdmin([]string{bootstrap}, saramaConfig())
	check("sarama connects", err)
	defer admin.Close()
	topic := "sarama-admin"
	settings := map[string]*string{"retention.ms": pointer("60000000000")}

	detail := &sarama.TopicDetail{NumPartitions: 2, ReplicationFactor: 1, ConfigEntries: settings}
	check("sarama creates a topic", admin.CreateTopic(topic, detail, false))
	check("sarama describes settings", same(saramaSetting(admin, topic, "retention.ms"), "60000000000"))
	check("sarama creates partitions", admin.CreatePartitions(topic, 4, nil, false))
	described, err := admin.DescribeTopics([]string{topic})
	check("sarama describes topics", err)
	check("sarama describes topics", same(len(described[0].Partitions), 4))
	brokers, controller, err := admin.DescribeCluster()
	check("sarama describes the cluster", err)
	check("sarama describes the cluster", same(fmt.Sprint(brokers[0].Addr(), controller), bootstrap+"1"))
	check("sarama alters settings", admin.IncrementalAlterConfig(sarama.TopicResource, topic,
		map[string]sarama.IncrementalAlterConfigsEntry{
			"cleanup.policy": {Operation: sarama.IncrementalAlterConfigsOperationAppend, Value: pointer("compact")},
		}, false))
	check("sarama alters settings", same(saramaSetting(admin, topic, "cleanup.policy"), "delete,compact"))
	small := map[string]*string{"max.message.bytes": pointer("2000")}
	check("sarama alters all settings", admin.AlterConfig(sarama.TopicResource, topic, small, false))
	check("sarama alters all settings", same(saramaSetting(admin, topic, "cleanup.policy"), "delete"))

	name := "sarama-records"
	check("sarama writes "+name, sendSarama(bootstrap, saramaConfig(), saramaMessages(name)))
	client, err := sarama.NewClient([]string{bootstrap}, saramaConfig())
	check("sarama connects", err)
	defer client.Close()
	offset, err := client.GetOffset(name, 0, firstTimestamp+17)
	check("sarama lists offsets by time", err)
	check("sarama lists offsets by time", same(offset, 17))
	check("sarama deletes records", admin.DeleteRecords(name, map[int32]int64{0: 20}))
	offset, err = client.GetOffset(name, 0, sarama.OffsetOldest)
	check("sarama lists the earliest offset", err)
	check("sarama lists the earliest offset", same(offset, 20))
	directories, err := admin.DescribeLogDirs([]int32{1})
	check("sarama describes log directories", err)
	check("sarama describes log directories", same(len(directories[1]), 1))
	brief := &sarama.TopicDetail{NumPartitions: 1, ReplicationFactor: 1}
	check("sarama creates another topic", admin.CreateTopic("sarama-short-lived", brief, false))
	check("sarama deletes topics", admin.DeleteTopic("sarama-short-lived"))

	for what, refusal := range map[string]struct{ found, wanted error }{
		"a topic twice": {admin.CreateTopic(topic, detail, false), sarama.ErrTopicAlreadyExists},
		"a topic of 0 partitions": {
			admin.CreateTopic("x", &sarama.TopicDetail{NumPartitions: 0, ReplicationFactor: 1}, false),
			sarama.ErrInvalidPartitions,
		},
		"3 replicas of one broker": {
			admin.CreateTopic("x", &sarama.TopicDetail{NumPartitions: 1, ReplicationFactor: 3}, false),
			sarama.ErrInvalidReplicationFactor,
		},
		"fewer partitions":         {admin.CreatePartitions(topic, 3, nil, false), sarama.ErrInvalidPartitions},
		"the deletion of no topic": {admin.DeleteTopic("nowhere"), sarama.ErrUnknownTopicOrPartition},
		"a message that is too large": {
			sendOne(bootstrap, topic, strings.Repeat("x", 3000), sarama.WaitForAll), sarama.ErrMessageSizeTooLarge,
		},
		"acks=5": {sendOne(bootstrap, name, "x", 5), sarama.ErrInvalidRequiredAcks},
		"a topic that nobody created": {
			sendOne(strict, "nowhere", "x", sarama.WaitForAll), sarama.ErrUnknownTopicOrPartition,
		},
	} {
		check("sarama is refused "+what, is(refusal.found, refusal.wanted))
	}
}

func sendOne(bootstrap, topic, value string, acks sarama.RequiredAcks) error {
	config := saramaConfig()
	config.Producer.RequiredAcks = acks
	producer, err := sarama.NewSyncProducer([]string{bootstrap}, config)
	if err != nil {
		return err
	}
	defer producer.Close()
	_, _, err = producer.SendMessage(&sarama.ProducerMessage{Topic: topic, Value: sarama.StringEncoder(value)})
	return err
}
