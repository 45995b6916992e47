//! ListOffsets v0: where segments begin that were last written to before a time (Kafka 3.9
//! `UnifiedLog.legacyFetchOffsetsBefore`).

#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::future::Future;

use crate::base::ids::Offset;
use crate::base::time::WallMs;
use crate::platform::Disk;
use crate::storage::log::{Log, LogError};
use crate::storage::segment::{LOG, parse_segment_name};

/// What version 0 of ListOffsets may ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Before {
    Latest,
    Earliest,
    Time(WallMs),
}

impl<D: Disk> Log<D> {
    /// The beginnings of segments that were not written to after `before`, and the log end if that is now or earlier:
    /// the largest ones first, at most `count_max`.
    pub fn offsets_before(
        &self,
        before: Before,
        count_max: usize,
        now: WallMs,
    ) -> impl Future<Output = Result<Vec<Offset>, LogError>> + use<D> + 'static {
        let (disk, directory) = (self.disk.clone(), self.directory.clone());
        let segments: Vec<Offset> = self.closed.keys().copied().chain([self.active.base_offset]).collect();
        let log_end_offset = (self.active.size > 0).then_some(self.log_end_offset);
        let log_start_offset = self.log_start_offset;
        async move {
            let times = match before {
                Before::Time(_) => {
                    let entries = disk.list(&directory).await.map_err(LogError::io_at(&directory))?;
                    let logs = entries.into_iter().filter_map(|entry| match parse_segment_name(&entry.name) {
                        Some((base_offset, LOG)) => Some((base_offset, entry.modified)),
                        _ => None,
                    });
                    logs.collect()
                }
                Before::Latest | Before::Earliest => BTreeMap::new(),
            };
            // A segment deleted meanwhile is as old as can be.
            let starts = segments.iter().map(|base_offset| {
                ((*base_offset).max(log_start_offset), times.get(base_offset).copied().unwrap_or(WallMs::MIN))
            });
            let places: Vec<(Offset, WallMs)> = starts.chain(log_end_offset.map(|end| (end, now))).collect();
            let count = match before {
                Before::Latest => places.len(),
                Before::Earliest => 1,
                Before::Time(time) => places.iter().rposition(|(_, modified)| *modified <= time).map_or(0, |at| at + 1),
            };
            Ok(places[..count].iter().rev().take(count_max).map(|(offset, _)| *offset).collect())
        }
    }
}
