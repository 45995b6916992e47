//! What `/proc` and `/sys` say of a machine. All is read below a root, so that tests can make machines.

#![forbid(unsafe_code)]

use std::fs;
use std::path::{Path, PathBuf};

/// See the head of this file.
pub struct Machine {
    root: PathBuf,
    /// Cores that this process may use.
    pub cores: usize,
    /// The data directory, whole, or the nearest directory above that exists.
    data: PathBuf,
}

/// Where the data directory lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    pub point: String,
    pub file_system: String,
    /// Of the mount and of the file system.
    pub options: Vec<String>,
    /// `major:minor`.
    device: String,
}

/// A limit of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// `None`: unlimited.
    pub soft: Option<u64>,
    pub hard: Option<u64>,
}

impl Machine {
    /// The one that this runs on.
    pub fn this(data: &Path) -> Machine {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let existing = data.ancestors().find_map(|path| match path.as_os_str().is_empty() {
            true => Path::new(".").canonicalize().ok(),
            false => path.canonicalize().ok(),
        });
        Machine { root: PathBuf::from("/"), cores, data: existing.unwrap_or_else(|| data.to_owned()) }
    }

    #[cfg(test)]
    pub fn at(root: &Path, cores: usize, data: &Path) -> Machine {
        Machine { root: root.to_owned(), cores, data: data.to_owned() }
    }

    /// A file's text without the white space around it.
    pub fn text(&self, path: &str) -> Option<String> {
        let text = fs::read_to_string(self.root.join(path.trim_start_matches('/'))).ok()?;
        Some(text.trim().to_owned())
    }

    pub fn number(&self, path: &str) -> Option<u64> {
        self.text(path)?.parse().ok()
    }

    /// The numbers of a file.
    pub fn numbers(&self, path: &str) -> Option<Vec<u64>> {
        self.text(path)?.split_whitespace().map(|number| number.parse().ok()).collect()
    }

    /// The choice in brackets, as `never` of `always madvise [never]`.
    pub fn choice(&self, path: &str) -> Option<String> {
        let text = self.text(path)?;
        let (_, rest) = text.split_once('[')?;
        Some(rest.split_once(']')?.0.to_owned())
    }

    /// Bytes of memory: all of it, and what could be had now.
    pub fn memory(&self) -> Option<(u64, u64)> {
        let text = self.text("/proc/meminfo")?;
        let bytes = |name: &str| {
            let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
            value.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
        };
        Some((bytes("MemTotal")?, bytes("MemAvailable")?))
    }

    /// Dirty bytes at which the kernel does what `vm.<name>_bytes` or `vm.<name>_ratio` says.
    pub fn dirty_bytes(&self, name: &str) -> Option<u64> {
        match self.number(&format!("/proc/sys/vm/{name}_bytes")).filter(|bytes| *bytes > 0) {
            Some(bytes) => Some(bytes),
            None => Some(self.memory()?.1 / 100 * self.number(&format!("/proc/sys/vm/{name}_ratio"))?),
        }
    }

    /// A limit by the name that `/proc/self/limits` has for it.
    pub fn limit(&self, name: &str) -> Option<Limit> {
        let text = self.text("/proc/self/limits")?;
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        let mut values = line.split_whitespace();
        let mut value = || match values.next()? {
            "unlimited" => Some(None),
            number => number.parse().ok().map(Some),
        };
        Some(Limit { soft: value()?, hard: value()? })
    }

    /// The file system that holds the data directory.
    pub fn mount(&self) -> Option<Mount> {
        let text = self.text("/proc/self/mountinfo")?;
        let holding = text.lines().filter_map(mount_of).filter(|mount| self.data.starts_with(&mount.point));
        // The last one of the longest covers those below it.
        holding.max_by_key(|mount| mount.point.len())
    }

    /// What a setting of the disk's queue says.
    fn queue(&self, name: &str) -> Option<PathBuf> {
        let block = self.block()?;
        // A partition has its queue in the directory above, the disk's.
        ["queue", "../queue"].into_iter().map(|queue| block.join(queue).join(name)).find(|path| path.exists())
    }

    fn block(&self) -> Option<PathBuf> {
        let device = self.mount()?.device;
        // Of a file system without a disk of its own (major 0) there is none.
        self.root.join("sys/dev/block").join(device).canonicalize().ok()
    }

    /// The disk's name, as in `/sys/block`.
    pub fn disk(&self) -> Option<String> {
        let block = self.block()?;
        let disk = if block.join("partition").exists() { block.parent()?.to_owned() } else { block };
        Some(disk.file_name()?.to_string_lossy().into_owned())
    }

    /// The I/O scheduler in use.
    pub fn scheduler(&self) -> Option<String> {
        let text = fs::read_to_string(self.queue("scheduler")?).ok()?;
        match text.split_once('[') {
            Some((_, rest)) => Some(rest.split_once(']')?.0.to_owned()),
            None => Some(text.trim().to_owned()),
        }
    }

    pub fn is_rotational(&self) -> Option<bool> {
        Some(fs::read_to_string(self.queue("rotational")?).ok()?.trim() == "1")
    }

    pub fn read_ahead_kib(&self) -> Option<u64> {
        fs::read_to_string(self.queue("read_ahead_kb")?).ok()?.trim().parse().ok()
    }

    /// The governors of the cores, each once.
    pub fn governors(&self) -> Vec<String> {
        let Ok(cores) = fs::read_dir(self.root.join("sys/devices/system/cpu")) else { return Vec::new() };
        let governor = |path: PathBuf| fs::read_to_string(path.join("cpufreq/scaling_governor")).ok();
        let found = cores.filter_map(Result::ok).filter_map(|core| governor(core.path()));
        let names: std::collections::BTreeSet<String> = found.map(|name| name.trim().to_owned()).collect();
        names.into_iter().collect()
    }

    /// Major and minor number of the kernel's version.
    pub fn kernel(&self) -> Option<(u32, u32)> {
        let release = self.release()?;
        let mut parts = release.split(|character: char| !character.is_ascii_digit());
        Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
    }

    pub fn release(&self) -> Option<String> {
        self.text("/proc/sys/kernel/osrelease")
    }
}

/// `27 1 254:1 / /data rw,noatime shared:1 - ext4 /dev/vda1 rw,data=ordered`
fn mount_of(line: &str) -> Option<Mount> {
    let (mount, super_block) = line.split_once(" - ")?;
    let mount: Vec<&str> = mount.split(' ').collect();
    let (device, point, options) = (mount.get(2)?, mount.get(4)?, mount.get(5)?);
    let mut super_block = super_block.split(' ');
    let file_system = super_block.next()?.to_owned();
    let more = super_block.nth(1).unwrap_or_default();
    let options = options.split(',').chain(more.split(',')).map(str::to_owned).collect();
    // Blanks and their like are written in octal.
    let point = ["\\040", "\\011", "\\134"]
        .into_iter()
        .zip([" ", "\t", "\\"])
        .fold((*point).to_owned(), |text, (octal, character)| text.replace(octal, character));
    Some(Mount { point, file_system, options, device: (*device).to_owned() })
}
