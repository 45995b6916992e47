//! CPU time, the bench's own and that of brokers on this machine, and what machine it is.

#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use nix::unistd::{SysconfVar, sysconf};

/// How /proc/net/tcp writes that a socket listens.
const LISTENS: &str = "0A";

/// CPU time used until some moment, in seconds.
pub struct CpuTime {
    pub own: f64,
    /// Or why it can't be told.
    pub brokers: Result<f64, String>,
}

impl CpuTime {
    pub fn now(brokers: &Result<Vec<u32>, String>) -> CpuTime {
        let sum = |pids: &Vec<u32>| pids.iter().map(|pid| cpu_seconds(*pid)).sum();
        CpuTime { own: own_cpu_seconds(), brokers: brokers.as_ref().map_err(Clone::clone).and_then(sum) }
    }

    pub fn since(self, earlier: &CpuTime) -> CpuTime {
        let brokers = match (self.brokers, &earlier.brokers) {
            (Ok(now), Ok(then)) => Ok(now - then),
            (Err(why), _) => Err(why),
            (_, Err(why)) => Err(why.clone()),
        };
        CpuTime { own: self.own - earlier.own, brokers }
    }
}

fn own_cpu_seconds() -> f64 {
    getrusage(UsageWho::RUSAGE_SELF).map_or(0.0, |usage| {
        (usage.user_time().num_microseconds() + usage.system_time().num_microseconds()) as f64 / 1e6
    })
}

/// User and system time of a process with all its threads, ended ones and the kernel's io_uring workers among them, in
/// steps of 10 ms.
fn cpu_seconds(pid: u32) -> Result<f64, String> {
    let gone = || format!("process {pid} can't be read in /proc");
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).map_err(|_| gone())?;
    // The name, in parentheses, may hold anything; utime and stime are the 12th and 13th field behind it (proc(5)).
    let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
    let mut ticks = fields.split_ascii_whitespace().skip(11).map_while(|field| field.parse::<u64>().ok());
    let (Some(user), Some(system)) = (ticks.next(), ticks.next()) else { return Err(gone()) };
    let per_second = sysconf(SysconfVar::CLK_TCK).ok().flatten().unwrap_or(100);
    Ok((user + system) as f64 / per_second as f64)
}

/// The processes that listen at these addresses, or the named one; or why they can't be told.
pub fn find(named: Option<u32>, addresses: BTreeSet<SocketAddr>) -> Result<Vec<u32>, String> {
    if let Some(pid) = named {
        return cpu_seconds(pid).map(|_| vec![pid]);
    }
    let mut pids = BTreeSet::new();
    for address in addresses {
        if !is_local(address.ip()) {
            return Err(format!("{address} is another machine"));
        }
        let inodes = listening_inodes(address);
        let pid = owner(&inodes);
        pids.insert(pid.ok_or_else(|| {
            format!("the process that listens at {address} can't be seen; run as its user, or give --pid")
        })?);
    }
    Ok(pids.into_iter().collect())
}

/// An address is of this machine if a socket can be bound to it.
fn is_local(ip: IpAddr) -> bool {
    ip.is_loopback() || UdpSocket::bind((ip, 0)).is_ok()
}

/// Inodes of the sockets that listen at an address, or at its port on all addresses.
fn listening_inodes(address: SocketAddr) -> BTreeSet<String> {
    let mut inodes = BTreeSet::new();
    for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
        let text = fs::read_to_string(table).unwrap_or_default();
        inodes.extend(text.lines().skip(1).filter_map(|line| listening_inode(line, address)));
    }
    inodes
}

/// The inode in a line of /proc/net/tcp or tcp6, if it is a socket that serves `address`.
fn listening_inode(line: &str, address: SocketAddr) -> Option<String> {
    let fields: Vec<&str> = line.split_ascii_whitespace().collect();
    let (local, state, inode) = (*fields.get(1)?, *fields.get(3)?, *fields.get(9)?);
    let (ip, port) = local.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let ip = parse_ip(ip)?;
    let serves = ip.is_unspecified() || ip.to_canonical() == address.ip().to_canonical();
    (state == LISTENS && port == address.port() && serves).then(|| inode.to_owned())
}

/// An address as the kernel prints it: words of 32 bits in the machine's byte order.
fn parse_ip(text: &str) -> Option<IpAddr> {
    let words: Option<Vec<u32>> =
        (0..text.len() / 8).map(|word| u32::from_str_radix(text.get(word * 8..word * 8 + 8)?, 16).ok()).collect();
    let bytes: Vec<u8> = words?.into_iter().flat_map(u32::to_ne_bytes).collect();
    if let Ok(v4) = <[u8; 4]>::try_from(&bytes[..]) {
        return Some(Ipv4Addr::from(v4).into());
    }
    <[u8; 16]>::try_from(&bytes[..]).ok().map(|v6| Ipv6Addr::from(v6).into())
}

/// The process that has one of these sockets open.
fn owner(inodes: &BTreeSet<String>) -> Option<u32> {
    let wanted: BTreeSet<String> = inodes.iter().map(|inode| format!("socket:[{inode}]")).collect();
    let processes = fs::read_dir("/proc").ok()?.filter_map(Result::ok);
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.into_iter().find(|pid| {
        // Those of other users can't be read.
        let files = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().filter_map(Result::ok);
        files
            .filter_map(|file| fs::read_link(file.path()).ok())
            .any(|link| link.to_str().is_some_and(|link| wanted.contains(link)))
    })
}

/// A number that no other run has.
pub fn random_id() -> u32 {
    let mut bytes = [0; 4];
    // Without randomness the process id and the time still tell runs apart.
    match getrandom::fill(&mut bytes) {
        Ok(()) => u32::from_ne_bytes(bytes),
        Err(_) => std::process::id() ^ std::time::UNIX_EPOCH.elapsed().map_or(0, |since| since.subsec_nanos()),
    }
}

/// What ran it all.
#[derive(Clone, Debug)]
pub struct Machine {
    pub host: String,
    pub kernel: String,
    pub cpu: String,
    pub cores: usize,
    pub memory_bytes: u64,
}

impl Machine {
    pub fn this() -> Machine {
        let uname = nix::sys::utsname::uname().ok();
        let text = |field: Option<&std::ffi::OsStr>| {
            field.map_or_else(|| "unknown".to_owned(), |text| text.to_string_lossy().into_owned())
        };
        let of = |file: &str, name: &str| {
            let file = fs::read_to_string(file).unwrap_or_default();
            let line = file.lines().find(|line| line.starts_with(name))?;
            line.split_once(':').map(|(_, value)| value.trim().to_owned())
        };
        let kilobytes = of("/proc/meminfo", "MemTotal").and_then(|value| value.split(' ').next()?.parse::<u64>().ok());
        Machine {
            host: text(uname.as_ref().map(|uname| uname.nodename())),
            kernel: text(uname.as_ref().map(|uname| uname.release())),
            cpu: of("/proc/cpuinfo", "model name").unwrap_or_else(|| "unknown".to_owned()),
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            memory_bytes: kilobytes.unwrap_or(0) * 1024,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_listening_process_is_found_by_its_socket() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
        let address = listener.local_addr().expect("an address");
        assert_eq!(find(None, [address].into()), Ok(vec![std::process::id()]));
        drop(listener);
        assert!(find(None, [address].into()).is_err_and(|why| why.contains("--pid")));
        assert!(
            find(None, ["192.0.2.1:9092".parse().expect("an address")].into())
                .is_err_and(|why| why.contains("another machine"))
        );
        assert!(find(Some(u32::MAX), BTreeSet::new()).is_err());
    }

    #[test]
    fn lines_of_proc_are_read_as_the_kernel_writes_them() {
        let line =
            "   0: 0100007F:2384 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1 f 100 0";
        let at = |text: &str| text.parse().expect("an address");
        assert_eq!(listening_inode(line, at("127.0.0.1:9092")), Some("4711".to_owned()));
        assert_eq!(listening_inode(line, at("127.0.0.2:9092")), None);
        assert_eq!(listening_inode(&line.replace("0A", "01"), at("127.0.0.1:9092")), None);
        assert_eq!(
            listening_inode(&line.replace("0100007F", "00000000"), at("127.0.0.2:9092")),
            Some("4711".to_owned())
        );
        let mapped = line.replace("0100007F", "0000000000000000FFFF00000100007F");
        assert_eq!(listening_inode(&mapped, at("127.0.0.1:9092")), Some("4711".to_owned()));
        assert_eq!(listening_inode("nonsense", at("127.0.0.1:9092")), None);
    }

    #[test]
    fn own_cpu_time_grows_with_work() {
        let pids = Ok(vec![std::process::id()]);
        let before = CpuTime::now(&pids);
        let mut random = crate::bench::payload::Random(1);
        while own_cpu_seconds() - before.own < 0.03 {
            random.next();
        }
        let used = CpuTime::now(&pids).since(&before);
        assert!(used.own >= 0.03 && used.brokers.is_ok_and(|seconds| seconds > 0.0));
    }
}
