//! CPU time, latencies, and the line of JSON.

use std::time::Duration;

use nix::unistd::{SysconfVar, sysconf};

use crate::LoadError;
use crate::client::Carried;

/// User and system time of a process with all its threads, ended ones too; 0 without a process. Steps of 10 ms.
pub fn cpu_seconds(process: Option<u32>) -> Result<f64, LoadError> {
    let Some(process) = process else { return Ok(0.0) };
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat"))?;
    // The name, in parentheses, may hold anything; utime and stime are the 12th and 13th field behind it (proc(5)).
    let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
    let mut ticks = fields.split_ascii_whitespace().skip(11).map_while(|field| field.parse::<u64>().ok());
    let (Some(user), Some(system)) = (ticks.next(), ticks.next()) else {
        return Err(LoadError::Answer("/proc/PID/stat is not as proc(5) says"));
    };
    let ticks_per_second = sysconf(SysconfVar::CLK_TCK)?.unwrap_or(100);
    Ok((user + system) as f64 / ticks_per_second as f64)
}

/// Significant bits of a bucket: its width is at most 1/32 of its latencies.
const PRECISION_BITS: u32 = 5;
const BUCKET_COUNT: usize = 64 << PRECISION_BITS;

/// Latencies in buckets that grow with them.
pub struct Histogram {
    counts: Vec<u64>,
    total: u64,
    max_ns: u64,
}

impl Default for Histogram {
    fn default() -> Histogram {
        Histogram { counts: vec![0; BUCKET_COUNT], total: 0, max_ns: 0 }
    }
}

impl Histogram {
    pub fn add(&mut self, latency: Duration) {
        let ns = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
        let shift = (u64::BITS - ns.leading_zeros()).saturating_sub(PRECISION_BITS + 1);
        let bucket = ((shift as usize) << PRECISION_BITS) + (ns >> shift) as usize;
        self.counts[bucket] += 1;
        self.total += 1;
        self.max_ns = self.max_ns.max(ns);
    }

    /// The latency that a share of all does not pass, in microseconds: the upper end of its bucket.
    fn percentile_us(&self, share: f64) -> f64 {
        let rank = (self.total as f64 * share).ceil() as u64;
        let mut seen = 0;
        for (bucket, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= rank && seen > 0 {
                let shift = (bucket >> PRECISION_BITS).saturating_sub(1);
                let value = (bucket - (shift << PRECISION_BITS)) as u64;
                return (((value + 1) << shift).min(self.max_ns)) as f64 / 1e3;
            }
        }
        0.0
    }
}

pub struct Report {
    pub carried: Carried,
    pub requests: u64,
    pub seconds: f64,
    /// Of the server, if its process was named.
    pub cpu_seconds: Option<f64>,
    pub latencies: Histogram,
}

impl Report {
    pub fn to_json(&self) -> String {
        let gigabytes = self.carried.bytes as f64 / 1e9;
        let latency = |share| self.latencies.percentile_us(share);
        serde_json::json!({
            "bytes": self.carried.bytes,
            "records": self.carried.records,
            "requests": self.requests,
            "seconds": self.seconds,
            "records_per_s": self.carried.records as f64 / self.seconds,
            "gb_per_s": gigabytes / self.seconds,
            "cpu_seconds": self.cpu_seconds,
            "cpu_s_per_gb": self.cpu_seconds.map(|cpu| cpu / gigabytes),
            "cpu_us_per_request": self.cpu_seconds.map(|cpu| cpu * 1e6 / self.requests as f64),
            "us_per_request": self.seconds * 1e6 / self.requests as f64,
            "latency_us": {
                "p50": latency(0.5), "p99": latency(0.99), "p99.9": latency(0.999), "max": latency(1.0),
            },
        })
        .to_string()
    }
}
