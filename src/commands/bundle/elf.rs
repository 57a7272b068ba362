//! An ELF executable with a further segment at its end. Pure.
//!
//! The table of segments stands where the kernel expects it, with no room behind it. So the payload's
//! segment takes the place of the notes, which nothing at run time needs. It comes after the last of
//! those that are loaded, since the kernel wants them by ascending addresses, and there it is also
//! behind all memory that the program has for itself. It is as aligned as they are, which is a page at
//! least on every kernel that runs the program.

use crate::process::segment::{FORMAT, NOTE_HEADER, SECTION, Slot};

const FILE_HEADER: usize = 64;
const SEGMENT_HEADER: usize = 56;
const SECTION_HEADER: usize = 64;

/// The types of segments and sections that matter.
const PT_LOAD: u32 = 1;
const PT_NOTE: u32 = 4;
const SHT_NOTE: u32 = 7;
/// A segment that is only read.
const PF_R: u32 = 4;

/// Why a file cannot carry migrations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unsuitable {
    /// Not a program for 64-bit Linux, of the usual byte order.
    NotElf,
    /// Not premigrate, or one that was changed beyond recognition.
    NoNote,
    /// A premigrate that something has changed since it was linked, or since it was bundled.
    Changed,
    /// A premigrate that reads another format of payloads, which is this one.
    Format(u32),
}

/// An executable of ours.
#[derive(Debug)]
pub struct Executable {
    /// The file, without the payload that it may have had.
    file: Vec<u8>,
    segments: Segments,
    /// Where the note is, in the file and in memory.
    note_offset: usize,
    note: u64,
}

#[derive(Debug)]
struct Segments {
    /// Where their headers are.
    offset: usize,
    headers: Vec<Segment>,
}

/// A program header, field by field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Segment {
    kind: u32,
    flags: u32,
    offset: u64,
    address: u64,
    physical: u64,
    file_size: u64,
    memory_size: u64,
    align: u64,
}

impl Segment {
    fn parse(bytes: &[u8], at: usize) -> Option<Segment> {
        let (word, long) = (|at| u32_at(bytes, at), |at| u64_at(bytes, at));
        Some(Segment {
            kind: word(at)?,
            flags: word(at + 4)?,
            offset: long(at + 8)?,
            address: long(at + 16)?,
            physical: long(at + 24)?,
            file_size: long(at + 32)?,
            memory_size: long(at + 40)?,
            align: long(at + 48)?,
        })
    }

    fn to_bytes(self) -> Vec<u8> {
        let Segment { kind, flags, offset, address, physical, file_size, memory_size, align } =
            self;
        let words = [kind, flags].into_iter().flat_map(u32::to_le_bytes);
        let longs = [offset, address, physical, file_size, memory_size, align];
        words.chain(longs.into_iter().flat_map(u64::to_le_bytes)).collect()
    }

    fn is_payload(&self, slot: &Slot) -> bool {
        self.kind == PT_LOAD
            && (self.address, self.offset, self.file_size)
                == (slot.address, slot.offset, slot.length)
    }

    fn contains(&self, address: u64) -> bool {
        address.checked_sub(self.address).is_some_and(|distance| distance < self.memory_size)
    }
}

impl Executable {
    pub fn parse(mut file: Vec<u8>) -> Result<Executable, Unsuitable> {
        let (segments, note_section) = headers(&file).ok_or(Unsuitable::NotElf)?;
        let Section { offset: note_offset, address: note, .. } =
            note_section.ok_or(Unsuitable::NoNote)?;
        let bytes = file.get(note_offset..).unwrap_or_default();
        let format = u32_at(bytes, 8).ok_or(Unsuitable::NoNote)?;
        if format != FORMAT {
            return Err(Unsuitable::Format(format));
        }
        let slot = bytes.get(NOTE_HEADER..).and_then(|rest| rest.first_chunk());
        let slot = Slot::from_bytes(slot.ok_or(Unsuitable::NoNote)?);
        let Segments { offset, mut headers } = segments;
        let end = file.len() as u64;
        let place = headers.iter().position(|segment| match &slot {
            None => segment.kind == PT_NOTE && segment.contains(note),
            Some(slot) => {
                segment.is_payload(slot) && slot.offset.checked_add(slot.length) == Some(end)
            }
        });
        headers.remove(place.ok_or(Unsuitable::Changed)?);
        if let Some(slot) = slot {
            file.truncate(usize::try_from(slot.offset).map_err(|_| Unsuitable::Changed)?);
        }
        Ok(Executable { file, segments: Segments { offset, headers }, note_offset, note })
    }

    /// The file without a payload, to which one can be added.
    pub fn file(&self) -> &[u8] {
        &self.file
    }

    /// Fills in the headers for a payload of this length and digest, which is to follow the file.
    pub fn describe_payload(&mut self, length: u64, digest: [u8; 32]) -> Option<()> {
        let loaded = |segment: &Segment| segment.kind == PT_LOAD;
        let headers = &self.segments.headers;
        let last = headers.iter().rposition(loaded)?;
        let align = headers.iter().filter(|segment| loaded(segment)).map(|it| it.align).max()?;
        let ends = headers.iter().filter(|segment| loaded(segment));
        let end = ends.map(|it| it.address.checked_add(it.memory_size)).max()??;
        let offset = self.file.len() as u64;
        // The same place in a page as in the file, of which the kernel maps whole pages.
        let address = end.checked_next_multiple_of(align)?.checked_add(offset % align)?;
        address.checked_add(length)?;
        let payload = Segment {
            kind: PT_LOAD,
            flags: PF_R,
            offset,
            address,
            physical: address,
            file_size: length,
            memory_size: length,
            align,
        };
        let mut headers = headers.clone();
        headers.insert(last + 1, payload);
        let table: Vec<u8> = headers.into_iter().flat_map(Segment::to_bytes).collect();
        self.overwrite(self.segments.offset, &table)?;
        let slot = Slot { note: self.note, address, offset, length, digest };
        self.overwrite(self.note_offset + NOTE_HEADER, &slot.to_bytes())
    }

    fn overwrite(&mut self, offset: usize, bytes: &[u8]) -> Option<()> {
        self.file.get_mut(offset..offset.checked_add(bytes.len())?)?.copy_from_slice(bytes);
        Some(())
    }
}

struct Section {
    kind: u32,
    name: usize,
    address: u64,
    offset: usize,
}

/// The segments, and the section of our note, if there is one.
fn headers(file: &[u8]) -> Option<(Segments, Option<Section>)> {
    let is_elf64 = file.starts_with(b"\x7fELF\x02\x01\x01");
    if !is_elf64 || file.len() < FILE_HEADER {
        return None;
    }
    let long = |at| usize::try_from(u64_at(file, at)?).ok();
    let short = |at| Some(usize::from(u16_at(file, at)?));
    let (segments, sections) = (long(32)?, long(40)?);
    if (short(54)?, short(58)?) != (SEGMENT_HEADER, SECTION_HEADER) {
        return None;
    }
    let at = |table: usize, size: usize, index: usize| table.checked_add(size * index);
    let segment = |index| Segment::parse(file, at(segments, SEGMENT_HEADER, index)?);
    let headers = (0..short(56)?).map(segment).collect::<Option<Vec<_>>>()?;
    let section = |index| Section::parse(file, at(sections, SECTION_HEADER, index)?);
    let all = (0..short(60)?).map(section).collect::<Option<Vec<_>>>()?;
    let names = all.get(short(62)?).map(|names| names.offset);
    let is_note = |section: &Section| {
        let name = names.and_then(|names| file.get(names.checked_add(section.name)?..));
        let name = name.and_then(|name| name.strip_prefix(SECTION.as_bytes()));
        section.kind == SHT_NOTE && name.is_some_and(|rest| rest.first() == Some(&0))
    };
    Some((Segments { offset: segments, headers }, all.into_iter().find(is_note)))
}

impl Section {
    fn parse(file: &[u8], at: usize) -> Option<Section> {
        Some(Section {
            name: usize::try_from(u32_at(file, at)?).ok()?,
            kind: u32_at(file, at + 4)?,
            address: u64_at(file, at + 16)?,
            offset: usize::try_from(u64_at(file, at + 24)?).ok()?,
        })
    }
}

fn bytes_at<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes_at(bytes, at).map(u16::from_le_bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes_at(bytes, at).map(u32::from_le_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes_at(bytes, at).map(u64::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// This test, which is an executable with our note.
    fn executable() -> Vec<u8> {
        std::fs::read(std::env::current_exe().unwrap()).unwrap()
    }

    fn with_payload(file: Vec<u8>, payload: &[u8]) -> Vec<u8> {
        let mut executable = Executable::parse(file).unwrap();
        executable.describe_payload(payload.len() as u64, [7; 32]).unwrap();
        [executable.file(), payload].concat()
    }

    fn segments(file: &[u8]) -> Vec<Segment> {
        headers(file).unwrap().0.headers
    }

    #[test]
    fn a_payload_is_loaded_behind_everything_else_and_by_ascending_addresses() {
        let file = executable();
        let (before, after) = (segments(&file), segments(&with_payload(file.clone(), b"payload")));
        assert_eq!(before.len(), after.len());
        let loaded: Vec<_> = after.iter().filter(|segment| segment.kind == PT_LOAD).collect();
        assert!(loaded.is_sorted_by_key(|segment| segment.address));
        let [.., data, payload] = loaded.as_slice() else { panic!("{loaded:?}") };
        let page = payload.align;
        assert!(
            page >= 4096 && payload.address / page > (data.address + data.memory_size - 1) / page
        );
        assert_eq!(payload.address % page, payload.offset % page);
        assert_eq!(
            (payload.flags, payload.offset, payload.file_size),
            (PF_R, file.len() as u64, 7)
        );
        assert_eq!(payload.memory_size, payload.file_size);
    }

    #[test]
    fn nothing_but_the_headers_and_the_note_is_changed() {
        let file = executable();
        let mut changed = with_payload(file.clone(), b"payload");
        let (Segments { offset, headers }, note) = headers(&file).unwrap();
        let slot = note.unwrap().offset + NOTE_HEADER;
        let table = offset..offset + SEGMENT_HEADER * headers.len();
        for may_change in [table, slot..slot + Slot::SIZE] {
            changed[may_change.clone()].copy_from_slice(&file[may_change]);
        }
        assert!(changed == [&file[..], b"payload"].concat());
    }

    #[test]
    fn a_further_payload_replaces_the_first() {
        let file = executable();
        let first = with_payload(file.clone(), b"the first payload");
        assert_eq!(with_payload(first, b"second"), with_payload(file, b"second"));
    }

    #[test]
    fn what_cannot_carry_a_payload_is_told_apart() {
        let file = executable();
        let refusal = |file: Vec<u8>| Executable::parse(file).err();
        assert_eq!(refusal(b"#!/bin/sh\n".to_vec()), Some(Unsuitable::NotElf));
        assert_eq!(refusal(file[..file.len() / 2].to_vec()), Some(Unsuitable::NotElf));
        assert_eq!(refusal(std::fs::read("/bin/true").unwrap()), Some(Unsuitable::NoNote));
        let note = headers(&file).unwrap().1.unwrap().offset;
        let mut newer = file.clone();
        newer[note + 8] = 2;
        assert_eq!(refusal(newer), Some(Unsuitable::Format(2)));
        let mut bundle = with_payload(file, b"payload");
        bundle.pop();
        assert_eq!(refusal(bundle), Some(Unsuitable::Changed));
    }

    #[test]
    fn headers_that_make_no_sense_are_no_panic() {
        let file = executable();
        let (Segments { offset, headers: all }, _) = headers(&file).unwrap();
        let sections = usize::try_from(u64_at(&file, 40).unwrap()).unwrap();
        let places = (0..FILE_HEADER)
            .chain(offset..offset + SEGMENT_HEADER * all.len())
            .chain(sections..file.len().min(sections + 64 * SECTION_HEADER));
        // Only as much of the file as the headers are in: it is changed often.
        let mut file = file;
        for at in places {
            for value in [0x00, 0x7f, 0xff] {
                let before = std::mem::replace(&mut file[at], value);
                let _ = headers(&file);
                file[at] = before;
            }
        }
    }
}
