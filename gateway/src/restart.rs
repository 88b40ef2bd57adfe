//! Where a hand-over is between two runs of the gateway: one file, beside the admin socket, for root alone, used once.
//!
//! What is in it is sealed ([`jumpgate_protocol::gateway::Circumstances`]); the file adds that nobody else can put one there,
//! and that it is gone before anything of it is used. A file that was copied is no hand-over: the seal names the inode.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use jumpgate_protocol::gateway::Circumstances;
use nix::fcntl::OFlag;
use nix::unistd::geteuid;
use zeroize::Zeroizing;

use crate::clock;

/// The directory beside the admin socket has the socket's name, and this behind it.
const DIRECTORY_SUFFIX: &str = ".handover";
/// The file in it.
const FILE: &str = "sessions";
/// The file while it is being written. It never becomes one that counts unless it is whole.
const UNFINISHED: &str = "sessions.unfinished";
/// Its owner alone.
const DIRECTORY_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;
/// Bits of a mode that let others in.
const OTHERS: u32 = 0o077;
/// Largest hand-over that is read: three times what the largest pool (2^17 sessions) comes to. Beyond it is something else.
const LARGEST: u64 = 1 << 30;
/// How the kernel names this boot of the machine.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// The place of the hand-over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HandoverFile {
    directory: PathBuf,
}

/// A hand-over that was there, and is not there any more.
pub struct Found {
    /// What it holds.
    pub sealed: Zeroizing<Vec<u8>>,
    /// Where and when.
    pub circumstances: Circumstances,
}

impl HandoverFile {
    /// The one of the gateway that answers at that admin socket.
    pub fn beside(admin_socket: &Path) -> Self {
        let mut directory = admin_socket.as_os_str().to_owned();
        directory.push(DIRECTORY_SUFFIX);
        Self { directory: directory.into() }
    }

    /// The file itself.
    pub fn path(&self) -> PathBuf {
        self.directory.join(FILE)
    }

    /// Writes what `seal` makes of where and when, whole and on the disk, or leaves nothing.
    ///
    /// # Errors
    /// As the file system says; then no hand-over is there.
    pub fn write(&self, seal: impl FnOnce(&Circumstances) -> Vec<u8>) -> io::Result<()> {
        match DirBuilder::new().mode(DIRECTORY_MODE).create(&self.directory) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => self.check_directory()?,
        }
        let unfinished = self.directory.join(UNFINISHED);
        // What a crash left; and one that nobody took, which is no use any more.
        remove(&unfinished)?;
        remove(&self.path())?;
        let write = || {
            let mut file = OpenOptions::new().write(true).create_new(true).mode(FILE_MODE).open(&unfinished)?;
            let metadata = file.metadata()?;
            let boot = boot_id()?;
            let sealed = seal(&Circumstances { boot, file: (metadata.dev(), metadata.ino()), now: clock::now() });
            file.write_all(&sealed)?;
            file.sync_all()?;
            fs::rename(&unfinished, self.path())
        };
        write().inspect_err(|_| {
            // Half of one is refused by its seal; not even that is left, if the file system lets us.
            let _ = fs::remove_file(&unfinished);
        })
    }

    /// Takes the hand-over, if there is one: it is read, and removed before anybody can use it.
    ///
    /// # Errors
    /// There is something, but it is not to be trusted, cannot be read, or cannot be removed.
    pub fn take(&self) -> io::Result<Option<Found>> {
        let path = self.path();
        let opened = OpenOptions::new().read(true).custom_flags(OFlag::O_NOFOLLOW.bits()).open(&path);
        let mut file = match opened {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let read = self.read(&mut file);
        // Whatever it is: it is not there a second time.
        fs::remove_file(&path)?;
        read.map(Some)
    }

    /// What is in the file, and which one it is.
    fn read(&self, file: &mut File) -> io::Result<Found> {
        self.check_directory()?;
        let metadata = file.metadata()?;
        check_owner(&metadata)?;
        if !metadata.is_file() || metadata.nlink() != 1 || metadata.len() > LARGEST {
            return Err(io::Error::other("it is no file that a gateway wrote"));
        }
        let mut sealed = Zeroizing::new(Vec::with_capacity(metadata.len() as usize));
        file.take(LARGEST).read_to_end(&mut sealed)?;
        let file = (metadata.dev(), metadata.ino());
        Ok(Found { sealed, circumstances: Circumstances { boot: boot_id()?, file, now: clock::now() } })
    }

    fn check_directory(&self) -> io::Result<()> {
        let metadata = fs::symlink_metadata(&self.directory)?;
        if metadata.is_dir() { check_owner(&metadata) } else { Err(io::Error::other("it is not in a directory")) }
    }
}

/// Ours alone to read and to write.
fn check_owner(metadata: &fs::Metadata) -> io::Result<()> {
    if metadata.uid() == geteuid().as_raw() && metadata.mode() & OTHERS == 0 {
        return Ok(());
    }
    Err(io::Error::new(io::ErrorKind::PermissionDenied, "others than this gateway can read or write it"))
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// This boot of the machine: 128 bits, written as a UUID.
fn boot_id() -> io::Result<[u8; 16]> {
    let text = fs::read_to_string(BOOT_ID)?;
    let digits: String = text.trim().chars().filter(|digit| *digit != '-').collect();
    let id = u128::from_str_radix(&digits, 16).map_err(|_| io::Error::other("the kernel does not name this boot"))?;
    Ok(id.to_be_bytes())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn place() -> (tempfile::TempDir, HandoverFile) {
        let directory = tempfile::tempdir().expect("directory");
        let file = HandoverFile::beside(&directory.path().join("admin.sock"));
        (directory, file)
    }

    fn write(file: &HandoverFile) -> Circumstances {
        let mut seen = None;
        file.write(|circumstances| {
            seen = Some(*circumstances);
            b"sealed".to_vec()
        })
        .expect("written");
        seen.expect("sealed")
    }

    #[test]
    fn ky9_a_hand_over_is_taken_once_from_where_it_was_written() {
        let (_directory, file) = place();
        assert!(file.take().expect("looked").is_none(), "nothing there yet");
        let written = write(&file);
        assert_eq!(fs::metadata(file.path()).expect("there").mode() & 0o7777, FILE_MODE);
        assert_eq!(fs::metadata(&file.directory).expect("there").mode() & 0o7777, DIRECTORY_MODE);
        let found = file.take().expect("taken").expect("there");
        assert_eq!(found.sealed.as_slice(), b"sealed");
        assert_eq!((found.circumstances.boot, found.circumstances.file), (written.boot, written.file));
        assert!(found.circumstances.now >= written.now);
        assert!(file.take().expect("looked").is_none(), "used once");
    }

    #[test]
    fn ky9_a_copy_is_another_file_and_a_second_name_is_refused() {
        let (directory, file) = place();
        let written = write(&file);
        let aside = directory.path().join("aside");
        fs::copy(file.path(), &aside).expect("copied");
        let mut kept = File::open(file.path()).expect("its inode stays in use");
        fs::remove_file(file.path()).expect("removed");
        fs::rename(&aside, file.path()).expect("put back");
        let found = file.take().expect("taken").expect("there");
        assert_ne!(found.circumstances.file, written.file, "the seal will say so");
        kept.read_to_end(&mut Vec::new()).expect("read");
        write(&file);
        fs::hard_link(file.path(), &aside).expect("linked");
        assert!(file.take().is_err(), "it would not be gone");
        assert!(!file.path().exists());
    }

    #[test]
    fn what_others_could_have_put_there_is_refused_and_removed() {
        let (directory, file) = place();
        write(&file);
        fs::set_permissions(file.path(), fs::Permissions::from_mode(0o640)).expect("chmod");
        assert!(file.take().is_err(), "the group may read it");
        assert!(file.take().expect("looked").is_none(), "and it is gone");
        write(&file);
        fs::set_permissions(&file.directory, fs::Permissions::from_mode(0o755)).expect("chmod");
        assert!(file.take().is_err(), "anybody may look into the directory");
        assert!(file.write(|_| Vec::new()).is_err(), "and nothing is written there");
        fs::set_permissions(&file.directory, fs::Permissions::from_mode(0o700)).expect("chmod");
        let elsewhere = directory.path().join("elsewhere");
        fs::write(&elsewhere, "sealed").expect("written");
        std::os::unix::fs::symlink(&elsewhere, file.path()).expect("linked");
        assert!(file.take().is_err(), "no way through a link");
        assert!(elsewhere.exists());
    }

    #[test]
    fn k12_what_cannot_be_written_whole_leaves_nothing() {
        let (_directory, file) = place();
        write(&file);
        fs::create_dir(file.directory.join(UNFINISHED)).expect("in the way");
        assert!(file.write(|_| b"new".to_vec()).is_err());
        fs::remove_dir(file.directory.join(UNFINISHED)).expect("cleared");
        file.write(|_| b"new".to_vec()).expect("written");
        assert_eq!(file.take().expect("taken").expect("there").sealed.as_slice(), b"new", "an old one is replaced");
        assert!(fs::read_dir(&file.directory).expect("there").next().is_none());
    }
}
