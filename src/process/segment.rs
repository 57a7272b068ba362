//! What `premigrate bundle` adds to an executable: a payload, in a segment of its own, which the kernel
//! maps with the program.
//!
//! So the program finds it without a file: in an image without `/proc`, and in an executable that may be
//! run but not read. A note, which every executable of ours has and `bundle` fills in, gives its address;
//! the program headers, which the kernel passes on in the auxiliary vector, show whether it is still
//! there. The note alone would not do: `strip` leaves it as it is, and drops the segment. Nor would the
//! headers: without the note, that would look like no bundle at all.
#![allow(unsafe_code, reason = "memory that the kernel has mapped, and that no Rust value owns")]

use std::io;

/// The section of the note.
pub const SECTION: &str = ".note.premigrate";

/// The version of the note and of the payload, which is the type of the note.
pub const FORMAT: u32 = 1;

/// A note begins with three numbers and a name.
pub const NOTE_HEADER: usize = 12 + NAME.len();

/// The owner of the note, which ends with a zero and fills whole words.
const NAME: [u8; 12] = *b"premigrate\0\0";

/// What `bundle` fills in. Without a payload, it is all zeros.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slot {
    /// The address of the note, before the kernel moves the program as a whole.
    pub note: u64,
    /// The address of the payload, likewise.
    pub address: u64,
    /// Where the payload begins in the file, and how long it is.
    pub offset: u64,
    pub length: u64,
    /// The SHA-256 of the payload.
    pub digest: [u8; 32],
}

impl Slot {
    pub const SIZE: usize = 64;

    pub fn to_bytes(&self) -> [u8; Slot::SIZE] {
        let mut bytes = [0; Slot::SIZE];
        let Slot { note, address, offset, length, digest } = self;
        let numbers = [note, address, offset, length].map(|number| number.to_le_bytes());
        let all = numbers.as_flattened().iter().chain(digest);
        bytes.iter_mut().zip(all).for_each(|(byte, value)| *byte = *value);
        bytes
    }

    /// `None` if nothing was filled in.
    pub fn from_bytes(bytes: &[u8; Slot::SIZE]) -> Option<Slot> {
        let [note, address, offset, length, digest @ ..] = bytes.as_chunks().0 else { return None };
        let [note, address, offset, length] =
            [note, address, offset, length].map(|number| u64::from_le_bytes(*number));
        let digest = digest.as_flattened().try_into().ok()?;
        let is_filled = bytes.iter().any(|&byte| byte != 0);
        is_filled.then_some(Slot { note, address, offset, length, digest })
    }
}

/// Why a payload is not there, although the note says that `bundle` added one.
#[derive(Debug)]
pub enum Lost {
    /// The kernel has not mapped it.
    Unmapped,
    /// The file ends before it does.
    Cut,
    /// It cannot be read.
    Unread(io::Error),
}

/// The payload of the program that runs.
pub struct Payload {
    bytes: &'static [u8],
    digest: [u8; 32],
}

impl Payload {
    pub fn bytes(&self) -> &'static [u8] {
        self.bytes
    }

    /// The SHA-256 that it had when it was added.
    pub fn digest(&self) -> &[u8] {
        &self.digest
    }
}

#[cfg(all(target_os = "linux", target_pointer_width = "64"))]
pub use linux::{executable, payload};

#[cfg(not(all(target_os = "linux", target_pointer_width = "64")))]
pub use elsewhere::{executable, payload};

#[cfg(all(target_os = "linux", target_pointer_width = "64"))]
mod linux {
    use std::ffi::{CStr, OsStr, c_char};
    use std::io::Write;
    use std::os::unix::ffi::OsStrExt;
    use std::{fs, io, ptr, slice};

    use nix::libc::{
        AT_EXECFN, AT_PHDR, AT_PHENT, AT_PHNUM, EFAULT, Elf64_Phdr, MADV_DONTNEED, PF_R, PT_LOAD,
        c_ulong, getauxval, madvise,
    };

    use super::{FORMAT, Lost, NAME, Payload, Slot};

    #[repr(C)]
    struct Note {
        name_size: u32,
        size: u32,
        kind: u32,
        name: [u8; NAME.len()],
        slot: [u8; Slot::SIZE],
    }

    /// The linker keeps it, since it is read below, and puts it into a segment of notes, whose program
    /// header `bundle` uses.
    #[unsafe(link_section = ".note.premigrate")]
    static NOTE: Note = Note {
        name_size: 11,
        size: Slot::SIZE as u32,
        kind: FORMAT,
        name: NAME,
        slot: [0; Slot::SIZE],
    };

    /// The payload that was added to the program that runs; `None` if none was.
    pub fn payload() -> Result<Option<Payload>, Lost> {
        // SAFETY: it is a static. The compiler knows what it was before `bundle`, so it must not look
        // there instead.
        let slot = unsafe { (&raw const NOTE.slot).read_volatile() };
        let Some(slot) = Slot::from_bytes(&slot) else { return Ok(None) };
        let is_payload = |header: &Elf64_Phdr| {
            header.p_type == PT_LOAD
                && header.p_flags & PF_R != 0
                && (header.p_vaddr, header.p_filesz) == (slot.address, slot.length)
        };
        let length = usize::try_from(slot.length).map_err(|_| Lost::Unmapped)?;
        if !program_headers().iter().any(is_payload) {
            return Err(Lost::Unmapped);
        }
        let distance = slot.address.wrapping_sub(slot.note) as usize;
        let address = (&raw const NOTE).addr().wrapping_add(distance);
        // SAFETY: the header says that the kernel has mapped these bytes, at this distance from the
        // note. They stay as they are until the process ends: nothing unmaps them or writes to them.
        let bytes = unsafe { slice::from_raw_parts(ptr::with_exposed_provenance(address), length) };
        check_end(bytes)?;
        Ok(Some(Payload { bytes, digest: slot.digest }))
    }

    /// Of this program, as the kernel has read them.
    fn program_headers() -> &'static [Elf64_Phdr] {
        let [address, count, size] = [AT_PHDR, AT_PHNUM, AT_PHENT].map(auxiliary);
        if address == 0 || size as usize != size_of::<Elf64_Phdr>() {
            return &[];
        }
        let headers = ptr::with_exposed_provenance(address as usize);
        // SAFETY: the kernel says that so many of them are there. Nothing writes to them.
        unsafe { slice::from_raw_parts(headers, count as usize) }
    }

    fn auxiliary(kind: c_ulong) -> c_ulong {
        // SAFETY: it only looks up what the kernel has passed to the process.
        unsafe { getauxval(kind) }
    }

    /// The kernel maps a file as if it were as long as its headers say, and a read behind its end would
    /// end the process by a signal. In a system call it is an error.
    fn check_end(bytes: &[u8]) -> Result<(), Lost> {
        let last = bytes.last_chunk::<1>().ok_or(Lost::Cut)?;
        let written = io::pipe().and_then(|(_reader, mut writer)| writer.write_all(last));
        written.map_err(|error| match error.raw_os_error() {
            Some(EFAULT) => Lost::Cut,
            _ => Lost::Unread(error),
        })
    }

    impl Payload {
        /// Reads all of it once, in pieces. What was read takes no memory afterwards.
        pub fn read_through(&self, mut read: impl FnMut(&[u8])) {
            const PIECE: usize = 1 << 20;
            // The largest page that a machine of ours may have.
            const PAGE: usize = 1 << 16;
            let unaligned = self.bytes.as_ptr().addr().wrapping_neg() % PAGE;
            let (first, rest) = self.bytes.split_at_checked(unaligned).unwrap_or((self.bytes, &[]));
            read(first);
            for piece in rest.chunks(PIECE) {
                read(piece);
                if piece.len() == PIECE {
                    // SAFETY: whole pages of a file that are mapped, and that nothing has written to.
                    // The next one who reads them finds the same, from the file.
                    unsafe { madvise(piece.as_ptr().cast_mut().cast(), PIECE, MADV_DONTNEED) };
                }
            }
        }
    }

    /// The file of the program that runs.
    pub fn executable() -> io::Result<Vec<u8>> {
        match fs::read("/proc/self/exe") {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                // Without `/proc`, there is only the name by which it was executed.
                let name = ptr::with_exposed_provenance::<c_char>(auxiliary(AT_EXECFN) as usize);
                if name.is_null() {
                    return Err(error);
                }
                // SAFETY: the kernel has put the name there, and it ends with a zero.
                let name = unsafe { CStr::from_ptr(name) };
                fs::read(OsStr::from_bytes(name.to_bytes()))
            }
            result => result,
        }
    }
}

/// On other systems there are executables of another kind, to which `bundle` adds nothing.
#[cfg(not(all(target_os = "linux", target_pointer_width = "64")))]
mod elsewhere {
    use std::io;

    use super::{Lost, Payload};

    pub fn payload() -> Result<Option<Payload>, Lost> {
        Ok(None)
    }

    impl Payload {
        pub fn read_through(&self, mut read: impl FnMut(&[u8])) {
            read(self.bytes);
        }
    }

    pub fn executable() -> io::Result<Vec<u8>> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_is_what_was_filled_in() {
        let slot = Slot { note: 1, address: u64::MAX, offset: 3, length: 4, digest: [5; 32] };
        assert_eq!(Slot::from_bytes(&slot.to_bytes()), Some(slot));
        assert_eq!(Slot::from_bytes(&[0; Slot::SIZE]), None);
    }

    #[test]
    fn a_program_without_a_bundle_has_no_payload() {
        assert!(payload().unwrap().is_none());
    }
}
