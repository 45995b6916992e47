package main

import (
	"context"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

func configOf(ctx context.Context, admin *kadm.Client, topic, name string) string {
	found, err := admin.DescribeTopicConfigs(ctx, topic)
	if err != nil {
		return err.Error()
	}
	for _, config := range found[0].Configs {
		if config.Key == name {
			return config.MaybeValue()
		}
	}
	return "no " + name
}

func pointer(text string) *string { return &text }

func administerFranz(ctx context.Context, bootstrap, strict string) {
	client, err := kgo.NewClient(kgo.SeedBrokers(bootstrap), kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.ProducerBatchCompression(kgo.NoCompression()))
	check("franz-go connects", err)
	defer client.Close()
	admin := kadm.NewClient(client)
	topic := "franz-admin"

	_, err = admin.CreateTopic(ctx, 2, 1, map[string]*string{"retention.ms": pointer("60000000000")}, topic)
	check("franz-go creates a topic", err)
	check("franz-go describes settings", same(configOf(ctx, admin, topic, "retention.ms"), "60000000000"))
	_, err = admin.UpdatePartitions(ctx, 4, topic)
	check("franz-go creates partitions", err)
	topics, err := admin.ListTopics(ctx, topic)
	check("franz-go lists topics", err)
	check("franz-go lists topics", same(len(topics[topic].Partitions), 4))
	metadata, err := admin.BrokerMetadata(ctx)
	check("franz-go describes the cluster", err)
	check("franz-go describes the cluster", same(metadata.Brokers.NodeIDs(), []int32{1}))

	altered, err := admin.AlterTopicConfigs(ctx, []kadm.AlterConfig{
		{Op: kadm.AppendConfig, Name: "cleanup.policy", Value: pointer("compact")},
		{Op: kadm.SetConfig, Name: "max.message.bytes", Value: pointer("2000")},
	}, topic)
	check("franz-go alters settings", err)
	check("franz-go alters settings", altered[0].Err)
	check("franz-go alters settings", same(configOf(ctx, admin, topic, "cleanup.policy"), "delete,compact"))
	state := []kadm.AlterConfig{{Name: "max.message.bytes", Value: pointer("2000")}}
	altered, err = admin.AlterTopicConfigsState(ctx, state, topic)
	check("franz-go alters all settings", err)
	check("franz-go alters all settings", altered[0].Err)
	check("franz-go alters all settings", same(configOf(ctx, admin, topic, "cleanup.policy"), "delete"))

	records := "franz-records"
	check("franz-go writes "+records, produce(ctx, bootstrap, records, kgo.Lz4Compression(), nil))
	offsets, err := admin.ListOffsetsAfterMilli(ctx, firstTimestamp+17, records)
	check("franz-go lists offsets by time", err)
	found, _ := offsets.Lookup(records, 0)
	check("franz-go lists offsets by time", same(found.Offset, 17))
	directories, err := admin.DescribeAllLogDirs(ctx, nil)
	check("franz-go describes log directories", err)
	_, there := directories[1].LookupPartition(records, 0)
	check("franz-go describes log directories", same(there, true))
	until := kadm.Offsets{}
	until.AddOffset(records, 0, 20, -1)
	_, err = admin.DeleteRecords(ctx, until)
	check("franz-go deletes records", err)
	starts, err := admin.ListStartOffsets(ctx, records)
	check("franz-go lists the earliest offsets", err)
	found, _ = starts.Lookup(records, 0)
	check("franz-go lists the earliest offsets", same(found.Offset, 20))
	_, err = admin.CreateTopic(ctx, 1, 1, nil, "franz-short-lived")
	check("franz-go creates another topic", err)
	_, err = admin.DeleteTopic(ctx, "franz-short-lived")
	check("franz-go deletes topics", err)

	_, err = admin.CreateTopic(ctx, 1, 1, nil, topic)
	check("franz-go is refused a topic twice", is(err, kerr.TopicAlreadyExists))
	_, err = admin.CreateTopic(ctx, 0, 1, nil, "x")
	check("franz-go is refused a topic of 0 partitions", is(err, kerr.InvalidPartitions))
	_, err = admin.CreateTopic(ctx, 1, 3, nil, "x")
	check("franz-go is refused 3 replicas of one broker", is(err, kerr.InvalidReplicationFactor))
	_, err = admin.CreateTopic(ctx, 1, 1, map[string]*string{"unknown.setting": pointer("1")}, "x")
	check("franz-go is refused an unknown setting", is(err, kerr.InvalidConfig))
	updated, err := admin.UpdatePartitions(ctx, 3, topic)
	check("franz-go asks for fewer partitions", err)
	check("franz-go is refused fewer partitions", is(updated[topic].Err, kerr.InvalidPartitions))
	_, err = admin.DeleteTopic(ctx, "nowhere")
	check("franz-go is refused the deletion of no topic", is(err, kerr.UnknownTopicOrPartition))
	err = client.ProduceSync(ctx, &kgo.Record{Topic: topic, Value: make([]byte, 3000)}).FirstErr()
	check("franz-go is refused a message that is too large", is(err, kerr.MessageTooLarge))

	other, err := kgo.NewClient(kgo.SeedBrokers(strict), kgo.UnknownTopicRetries(1), kgo.AllowAutoTopicCreation())
	check("franz-go connects to the second broker", err)
	defer other.Close()
	short, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	err = other.ProduceSync(short, &kgo.Record{Topic: "nowhere", Value: []byte("x")}).FirstErr()
	check("franz-go is refused a topic that nobody created", is(err, kerr.UnknownTopicOrPartition))
}
