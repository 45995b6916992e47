//! The life of the page cache over a directory's file system: from its mounting to its unmounting, within one boot.
//!
//! It is named by the boot's id and by what names this mounting of the file system. A mount's own id won't do: containers and
//! systemd's hardening mount the same file system again at each start, over the same page cache. The file system's
//! directory in sysfs stands for it: it is made when the file system is mounted first and goes with the last mount, and its
//! inode number is never given again within a boot (kernfs, since Linux 5.5).

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::sys::stat::{major, minor};
use nix::sys::statfs::statfs;

const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// File systems on a block device that have a directory in `/sys/fs`, by the magic numbers of `linux/magic.h`.
const IN_SYSFS: [(i64, &str); 3] = [(0xef53, "ext4"), (0x5846_5342, "xfs"), (0xf2f5_2010, "f2fs")];
const TMPFS: i64 = 0x0102_1994;

/// See [`crate::platform::Disk::cache_life`].
pub(super) fn cache_life(path: &Path) -> io::Result<Option<String>> {
    let Some(boot_id) = known(fs::read_to_string(BOOT_ID))? else { return Ok(None) };
    let boot_id = boot_id.trim();
    let device = fs::metadata(path)?.dev();
    let (major, minor) = (major(device), minor(device));
    #[allow(clippy::unnecessary_cast, reason = "the width of the number differs between machines")]
    let magic = statfs(path)?.filesystem_type().0 as i64;
    if magic == TMPFS {
        // Its files go with it.
        return Ok(Some(format!("{boot_id} tmpfs {major}:{minor}")));
    }
    let Some((_, kind)) = IN_SYSFS.into_iter().find(|(known, _)| *known == magic) else { return Ok(None) };
    let Some(device) = known(fs::read_link(format!("/sys/dev/block/{major}:{minor}")))? else { return Ok(None) };
    let Some(name) = device.file_name().and_then(|name| name.to_str()) else { return Ok(None) };
    let mounting = known(fs::metadata(Path::new("/sys/fs").join(kind).join(name)))?;
    Ok(mounting.map(|mounting| format!("{boot_id} {kind} {name} {}", mounting.ino())))
}

/// `None` where the kernel does not show it: no `/proc` or `/sys` here, or a file system without a device of its own.
fn known<T>(shown: io::Result<T>) -> io::Result<Option<T>> {
    match shown {
        Ok(shown) => Ok(Some(shown)),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied) => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    const IMAGE_BYTES: u64 = 512 << 20;

    fn succeeds(command: &mut Command) -> bool {
        command.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
    }

    fn life_of(path: &Path) -> Option<String> {
        cache_life(path).expect("a directory that can be looked at")
    }

    /// An image of a file system, mounted on a loop device until it is dropped.
    struct Mounted<'a>(&'a Path);

    impl Mounted<'_> {
        fn mount<'a>(image: &Path, at: &'a Path) -> Option<Mounted<'a>> {
            succeeds(Command::new("mount").args(["-o", "loop"]).arg(image).arg(at)).then_some(Mounted(at))
        }
    }

    impl Drop for Mounted<'_> {
        fn drop(&mut self) {
            assert!(succeeds(Command::new("umount").arg(self.0)), "{} stays mounted", self.0.display());
        }
    }

    #[test]
    fn the_page_cache_over_a_file_system_lives_from_its_mounting_to_its_unmounting() {
        let directory = tempfile::tempdir().expect("a directory");
        let (image, at, bound) =
            (directory.path().join("image"), directory.path().join("mounted"), directory.path().join("bound"));
        for path in [&at, &bound] {
            fs::create_dir(path).expect("a mount point");
        }
        for kind in ["ext4", "xfs"] {
            let made = fs::File::create(&image).and_then(|file| file.set_len(IMAGE_BYTES));
            made.expect("an image");
            let quiet = if kind == "ext4" { "-F" } else { "-f" };
            if !succeeds(Command::new(format!("mkfs.{kind}")).args(["-q", quiet]).arg(&image)) {
                eprintln!("skipped: no mkfs.{kind} here");
                continue;
            }
            let Some(mounted) = Mounted::mount(&image, &at) else {
                eprintln!("skipped: an image of {kind} can't be mounted here (that takes root and a loop device)");
                continue;
            };
            let life = life_of(&at).unwrap_or_else(|| panic!("{kind} tells its life"));
            assert!(life.contains(kind), "{life}");
            assert_eq!(life_of(&at), Some(life.clone()), "the same at another look");
            // What a container does at each of its starts: the file system stays mounted all the time.
            assert!(succeeds(Command::new("mount").arg("--bind").arg(&at).arg(&bound)));
            let bound = Mounted(&bound);
            assert_eq!(life_of(bound.0), Some(life.clone()), "through another mount of it");
            drop(bound);
            drop(mounted);
            let _mounted = Mounted::mount(&image, &at).expect("it was mounted before");
            assert_ne!(life_of(&at), Some(life), "it was unmounted in between");
        }
    }

    #[test]
    fn a_directory_in_memory_tells_a_life_and_one_that_is_not_there_is_an_error() {
        assert_eq!(life_of(Path::new("/proc/self")), None, "no files of ours are there");
        if let Ok(directory) = tempfile::tempdir_in("/dev/shm") {
            let life = life_of(directory.path());
            assert!(life.as_ref().is_none_or(|life| life.contains(" tmpfs ")), "{life:?}");
        }
        assert!(cache_life(Path::new("/no/such/directory")).is_err());
    }
}
