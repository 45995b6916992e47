//! Fetch: each connection reads one partition, from offset 0 to the high watermark and over again. A cold one drops what it
//! has read from the page cache first.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use ringlog::protocol::header::{RequestHeader, begin_request, decode_response_header, finish_frame};
use ringlog::protocol::message::fetch::{FetchPartition, FetchRequest, FetchResponse, FetchTopic};
use ringlog::protocol::{ApiKey, Reader};
use ringlog::record::batch::batches;

use crate::LoadError;
use crate::client::{Carried, Workload};

const VERSION: i16 = 11;
const WAIT_MS: i32 = 500;

pub struct Fetch {
    topic: Arc<str>,
    max_bytes: i32,
    /// Partition and next offset, by connection.
    places: Vec<(i32, i64)>,
    /// The server's data directory, if what was read is to leave the page cache.
    evict_in: Option<PathBuf>,
}

impl Fetch {
    pub fn new(topic: &str, partitions: i32, connections: usize, max_bytes: i32, evict_in: Option<PathBuf>) -> Fetch {
        let places = (0..partitions).cycle().take(connections).map(|partition| (partition, 0)).collect();
        Fetch { topic: topic.into(), max_bytes, places, evict_in }
    }

    /// Starts the connection's partition over.
    fn start_over(&mut self, connection: usize) -> Result<(), LoadError> {
        let (partition, next) = &mut self.places[connection];
        *next = 0;
        match &self.evict_in {
            Some(data) => Ok(evict(&data.join(format!("{}-{partition}", self.topic)))?),
            None => Ok(()),
        }
    }
}

/// Drops the clean pages of a directory's files.
fn evict(directory: &Path) -> std::io::Result<()> {
    for entry in std::fs::read_dir(directory)? {
        let file = File::open(entry?.path())?;
        posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED)?;
    }
    Ok(())
}

impl Workload for Fetch {
    fn request(&mut self, connection: usize, correlation_id: i32, out: &mut Vec<u8>) -> Result<(), LoadError> {
        let (partition, fetch_offset) = self.places[connection];
        let header = RequestHeader {
            api_key: ApiKey::Fetch.code(),
            api_version: VERSION,
            correlation_id,
            client_id: Some("load".into()),
        };
        let mut writer = begin_request(&header)?;
        let partition =
            FetchPartition { partition, fetch_offset, partition_max_bytes: self.max_bytes, ..Default::default() };
        let topic = FetchTopic { topic: Arc::clone(&self.topic), partitions: vec![partition], ..Default::default() };
        let request = FetchRequest {
            max_wait_ms: WAIT_MS,
            min_bytes: 1,
            max_bytes: self.max_bytes,
            topics: vec![topic],
            ..Default::default()
        };
        request.encode(&mut writer, VERSION)?;
        out.extend_from_slice(&finish_frame(writer)?);
        Ok(())
    }

    fn answer(&mut self, connection: usize, correlation_id: i32, frame: &[u8]) -> Result<Carried, LoadError> {
        let mut reader = Reader::new(frame);
        if decode_response_header(&mut reader, ApiKey::Fetch, VERSION)? != correlation_id {
            return Err(LoadError::Answer("answers are out of order"));
        }
        let response = FetchResponse::decode(&mut reader, VERSION)?;
        let partition = response.responses.first().and_then(|topic| topic.partitions.first());
        let partition = partition.ok_or(LoadError::Answer("an answer without a partition"))?;
        if response.error_code != 0 || partition.error_code != 0 {
            return Err(LoadError::Refused(response.error_code.max(partition.error_code)));
        }
        let records = partition.records.map_or(0..0, |span| span.range());
        let mut carried = Carried { bytes: records.len() as u64, records: 0 };
        let mut last_offset = None;
        for (header, _) in batches(&frame[records]).map_while(Result::ok) {
            carried.records += u64::try_from(header.record_count).unwrap_or(0);
            last_offset = Some(header.last_offset());
        }
        let next = &mut self.places[connection].1;
        match last_offset {
            Some(last_offset) => *next = last_offset + 1,
            None if carried.bytes > 0 => return Err(LoadError::Answer("an answer without a whole batch")),
            None => {}
        }
        if *next >= partition.high_watermark {
            self.start_over(connection)?;
        }
        Ok(carried)
    }
}
