//! The content of a file: in memory, packed in the bundle of this executable, or left in its folder.
//! However it is kept, its size and its hash are known without it.

use std::borrow::Cow;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::{io, iter};

use miniz_oxide::deflate::compress_to_vec;
use miniz_oxide::inflate::decompress_slice_iter_to_slice;
use nix::libc;

use crate::migrations::migration::Hash;

/// Which is held once, however often it is cloned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Content(Arc<Kept>);

#[derive(Debug, PartialEq, Eq)]
enum Kept {
    Here(Cow<'static, [u8]>),
    Packed { packed: &'static [u8], size: usize, hash: Hash },
    InFolder { path: PathBuf, size: usize, hash: Hash },
}

/// How hard to pack: the most that is worth its time.
const LEVEL: u8 = 8;

/// Packs a file's content.
pub fn pack(bytes: &[u8]) -> Vec<u8> {
    compress_to_vec(bytes, LEVEL)
}

/// What `pack` made of a file of this size, in just as much memory.
fn unpack(packed: &[u8], size: usize) -> Option<Vec<u8>> {
    // No byte stands for more of them: a size that is damaged takes no memory.
    (size / 1032 <= packed.len()).then_some(())?;
    let mut bytes = vec![0; size];
    let length =
        decompress_slice_iter_to_slice(&mut bytes, iter::once(packed), false, true).ok()?;
    (length == size).then_some(bytes)
}

/// How much of a file is read between two looks for a signal.
const CHUNK: u64 = 1 << 20;

/// The content of a regular file. Anything else may never end, or never begin: opening a pipe would
/// wait for its writer. Ends with an error soon after `is_stopped` becomes true.
pub fn read_file(path: &Path, is_stopped: &dyn Fn() -> bool) -> io::Result<Vec<u8>> {
    let not_a_file = || io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file");
    let file = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path);
    let mut file = file.map_err(|error| match error.raw_os_error() {
        // A socket cannot be opened.
        Some(libc::ENXIO) => not_a_file(),
        _ => error,
    })?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(not_a_file());
    }
    let mut content = Vec::new();
    content.try_reserve_exact(usize::try_from(metadata.len()).unwrap_or(usize::MAX))?;
    while file.by_ref().take(CHUNK).read_to_end(&mut content)? as u64 == CHUNK {
        if is_stopped() {
            return Err(io::ErrorKind::Interrupted.into());
        }
    }
    Ok(content)
}

impl Content {
    /// What `pack` made of a file of this size and hash.
    pub fn packed(packed: &'static [u8], size: usize, hash: Hash) -> Content {
        Content(Arc::new(Kept::Packed { packed, size, hash }))
    }

    /// The content of this file, which is not kept: it is read again when it is needed.
    pub fn in_folder(path: PathBuf, bytes: &[u8]) -> Content {
        Content(Arc::new(Kept::InFolder { path, size: bytes.len(), hash: Hash::of(bytes) }))
    }

    pub fn size(&self) -> usize {
        match &*self.0 {
            Kept::Here(bytes) => bytes.len(),
            Kept::Packed { size, .. } | Kept::InFolder { size, .. } => *size,
        }
    }

    pub fn hash(&self) -> Hash {
        match &*self.0 {
            Kept::Here(bytes) => Hash::of(bytes),
            Kept::Packed { hash, .. } | Kept::InFolder { hash, .. } => hash.clone(),
        }
    }

    /// The bytes, if they are in memory as they are.
    pub fn here(&self) -> Option<&[u8]> {
        match &*self.0 {
            Kept::Here(bytes) => Some(bytes),
            _ => None,
        }
    }

    pub fn is_packed(&self) -> bool {
        matches!(&*self.0, Kept::Packed { .. })
    }

    /// All of it. What was packed or left in its folder is read for the caller alone.
    pub fn read(&self) -> io::Result<Cow<'_, [u8]>> {
        let bytes = match &*self.0 {
            Kept::Here(bytes) => return Ok(Cow::Borrowed(bytes)),
            Kept::Packed { packed, size, .. } => unpack(packed, *size).ok_or_else(|| {
                io::Error::new(io::ErrorKind::InvalidData, "it cannot be unpacked")
            })?,
            Kept::InFolder { path, .. } => read_file(path, &|| false)?,
        };
        match bytes.len() == self.size() && Hash::of(&bytes) == self.hash() {
            true => Ok(Cow::Owned(bytes)),
            false => Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "it has changed since it was read first; start again",
            )),
        }
    }
}

impl From<Cow<'static, [u8]>> for Content {
    fn from(bytes: Cow<'static, [u8]>) -> Content {
        Content(Arc::new(Kept::Here(bytes)))
    }
}

impl From<&'static [u8]> for Content {
    fn from(bytes: &'static [u8]) -> Content {
        Cow::Borrowed(bytes).into()
    }
}

impl From<Vec<u8>> for Content {
    fn from(bytes: Vec<u8>) -> Content {
        Cow::<[u8]>::Owned(bytes).into()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn what_was_packed_is_read_as_it_was() {
        for bytes in [&b""[..], b"select 1", &[0xff; 70_000], &(0..=255).collect::<Vec<u8>>()] {
            let packed = pack(bytes).leak();
            let content = Content::packed(packed, bytes.len(), Hash::of(bytes));
            assert_eq!(content.read().unwrap(), bytes);
            assert_eq!((content.size(), content.hash()), (bytes.len(), Hash::of(bytes)));
        }
    }

    #[test]
    fn what_is_not_what_its_hash_says_is_an_error() {
        let packed: &'static [u8] = pack(b"select 1").leak();
        for (packed, size, hashed) in [
            (packed, 8, &b"select 2"[..]),
            (packed, 7, b"select 1"),
            (packed, 9, b"select 1"),
            (&packed[1..], 8, b"select 1"),
        ] {
            assert!(Content::packed(packed, size, Hash::of(hashed)).read().is_err());
        }
    }

    #[test]
    fn a_file_that_has_changed_is_not_read_as_what_it_was() {
        let path = std::env::temp_dir().join(format!("premigrate-content-{}", std::process::id()));
        fs::write(&path, "select 1").unwrap();
        let content = Content::in_folder(path.clone(), b"select 1");
        assert_eq!(content.read().unwrap(), &b"select 1"[..]);
        fs::write(&path, "select 2").unwrap();
        assert!(content.read().is_err());
        fs::remove_file(&path).unwrap();
        assert!(content.read().is_err());
    }
}
