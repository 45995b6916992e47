use super::client::FETCH_VERSION;
use super::*;
use crate::protocol::message::*;
use crate::protocol::{ApiKey, Reader};
use crate::record::batch::batches;

/// What a fetch and two ListOffsets say of a partition under an isolation level.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    end_offset: i64,
    high_watermark: i64,
    last_stable: i64,
    /// Producer ids and first offsets.
    aborted: Option<Vec<(i64, i64)>>,
    latest: i64,
}

async fn look(client: &mut Client, partition: i32, offset: i64, isolation_level: i8) -> Option<Seen> {
    let asked =
        FetchPartition { partition, fetch_offset: offset, partition_max_bytes: 1 << 20, ..FetchPartition::default() };
    let request = FetchRequest {
        isolation_level,
        topics: vec![FetchTopic { topic: TOPIC.into(), partitions: vec![asked], ..FetchTopic::default() }],
        ..FetchRequest::default()
    };
    let body = client.ask(ApiKey::Fetch, FETCH_VERSION, |w| request.encode(w, FETCH_VERSION)).await?;
    let mut response = FetchResponse::decode(&mut Reader::new(&body), FETCH_VERSION).expect("fetched");
    let answer = response.responses[0].partitions.remove(0);
    assert_eq!(answer.error_code, 0);
    let records = answer.records.map(|span| &body[span.range()]).unwrap_or_default();
    let end_offset =
        batches(records).map_while(Result::ok).last().map_or(offset, |(header, _)| header.last_offset() + 1);
    let aborted = answer.aborted_transactions;
    let aborted = aborted.map(|all| all.iter().map(|found| (found.producer_id, found.first_offset)).collect());

    let latest = ListOffsetsPartition { partition_index: partition, timestamp: -1, ..ListOffsetsPartition::default() };
    let topics = vec![ListOffsetsTopic { name: TOPIC.to_owned(), partitions: vec![latest] }];
    let request = ListOffsetsRequest { replica_id: -1, isolation_level, topics };
    let body = client.ask(ApiKey::ListOffsets, 5, |w| request.encode(w, 5)).await?;
    let response = ListOffsetsResponse::decode(&mut Reader::new(&body), 5).expect("listed");
    let latest = response.topics[0].partitions[0].offset;
    let (high_watermark, last_stable) = (answer.high_watermark, answer.last_stable_offset);
    Some(Seen { end_offset, high_watermark, last_stable, aborted, latest })
}

/// Two partitions hold what Kafka 3.9 wrote: one with six transactions, two of them aborted, one with an open transaction.
#[test]
fn a_read_committed_consumer_sees_what_is_decided_and_is_told_what_was_aborted() {
    let world = World::new(7);
    let clients = world.executor();
    let node = Node::start(&world, Remains::none(), TWO_SHARDS);
    let mut maker = Client::new(node.connect());
    run(&world, &clients, async move { maker.create_topic().await.expect("created") });
    let remains = node.end(End::Kill);
    let golden = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/kafka-3.9/unclean");
    for (partition, from) in [(0, "txn-0"), (1, "txn-open-0")] {
        for entry in std::fs::read_dir(golden.join(from)).expect("golden files").map(|entry| entry.expect("a file")) {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.ends_with(".log") {
                let path = std::path::Path::new("/data").join(format!("{TOPIC}-{partition}")).join(name);
                remains.disk.put(&path, &std::fs::read(entry.path()).expect("read"));
            }
        }
    }
    let node = Node::start(&world, remains, TWO_SHARDS);
    let mut client = Client::new(node.connect());
    run(&world, &clients, async move {
        let seen = |end_offset, ends: (i64, i64), aborted, latest| {
            let (high_watermark, last_stable) = ends;
            Some(Seen { end_offset, high_watermark, last_stable, aborted, latest })
        };
        let ends = (76, 76);
        assert_eq!(look(&mut client, 0, 0, 0).await, seen(10, ends, None, 76));
        assert_eq!(look(&mut client, 0, 0, 1).await, seen(10, ends, Some(vec![]), 76));
        assert_eq!(look(&mut client, 0, 10, 1).await, seen(76, ends, Some(vec![(1, 11), (1, 44)]), 76));
        assert_eq!(look(&mut client, 0, 22, 1).await, seen(76, ends, Some(vec![(1, 44)]), 76));
        assert_eq!(look(&mut client, 0, 60, 1).await, seen(76, ends, Some(vec![]), 76));
        let ends = (5, 0);
        assert_eq!(look(&mut client, 1, 0, 0).await, seen(5, ends, None, 5));
        assert_eq!(look(&mut client, 1, 0, 1).await, seen(0, ends, Some(vec![]), 0));
    });
    node.end(End::Kill);
}
