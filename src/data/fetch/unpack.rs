//! Taking the expected files, and nothing else, out of a gzip tar archive.

use super::super::catalog::Member;
use super::FetchError;
use flate2::read::MultiGzDecoder;
use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::path::{Component, Path, PathBuf};
use tar::{Archive, EntryType};

/// What an archive may hold beside the expected files: descriptions, lists of names, padding.
const MOST_OTHER_BYTES: u64 = 16 << 20;

/// Writes the `members` of the archive into `folder`, under their names.
///
/// Other files and folders are passed over. Links, special files and paths that lead out of the
/// archive's folder make the whole archive suspect: it is refused, as it is where an expected file
/// is missing, doubled or of another size.
pub(super) fn unpack(archive: &Path, members: &[Member], folder: &Path) -> Result<(), FetchError> {
    let name = archive.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let refuse = |problem: String| FetchError::Archive { name: name.clone(), problem };
    let damaged = |error: io::Error| refuse(format!("the archive is damaged ({error})"));
    let file = File::open(archive).map_err(FetchError::io(archive, "read the file"))?;
    let most: u64 = members.iter().map(|member| member.bytes).sum::<u64>() + MOST_OTHER_BYTES;
    let mut tar = Archive::new(MultiGzDecoder::new(BufReader::new(file)).take(most));
    let mut missing: Vec<&Member> = members.iter().collect();
    for entry in tar.entries().map_err(damaged)? {
        let mut entry = entry.map_err(damaged)?;
        let path = entry.path().map_err(damaged)?.into_owned();
        let shown = path.display().to_string();
        if path.components().any(|part| !matches!(part, Component::Normal(_) | Component::CurDir)) {
            return Err(refuse(format!("{shown:?} leads out of the archive's folder")));
        }
        let path: PathBuf = path.components().filter(|part| matches!(part, Component::Normal(_))).collect();
        match entry.header().entry_type() {
            EntryType::Regular | EntryType::Continuous => {}
            EntryType::Directory | EntryType::XGlobalHeader | EntryType::XHeader => continue,
            kind => return Err(refuse(format!("{shown:?} is no regular file but {kind:?}"))),
        }
        let Some(member) = members.iter().find(|member| Path::new(member.path) == path.as_path()) else { continue };
        if entry.size() != member.bytes {
            return Err(refuse(format!("{shown:?} has {} bytes instead of {}", entry.size(), member.bytes)));
        }
        let Some(position) = missing.iter().position(|other| *other == member) else {
            return Err(refuse(format!("{shown:?} is in it twice")));
        };
        missing.swap_remove(position);
        copy(&mut entry, &folder.join(member.name()), member.bytes, &damaged)?;
    }
    match missing.first() {
        None => Ok(()),
        Some(member) => Err(refuse(format!("there is no {:?} in it", member.path))),
    }
}

/// Writes exactly `bytes` bytes of `reader` to a new file.
fn copy(reader: &mut dyn Read, path: &Path, bytes: u64, damaged: &dyn Fn(io::Error) -> FetchError) -> Result<(), FetchError> {
    let mut file = File::create_new(path).map_err(FetchError::io(path, "make the file"))?;
    let mut buffer = vec![0; 1 << 16];
    let mut left = bytes;
    while left > 0 {
        let wanted = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let count = reader.read(&mut buffer[..wanted]).map_err(damaged)?;
        if count == 0 {
            return Err(damaged(io::ErrorKind::UnexpectedEof.into()));
        }
        file.write_all(&buffer[..count]).map_err(FetchError::io(path, "write the file"))?;
        left -= count as u64;
    }
    file.sync_all().map_err(FetchError::io(path, "write the file"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::{Compression, write::GzEncoder};
    use std::fs;
    use tar::{Builder, Header};

    const MEMBERS: [Member; 2] = [Member { path: "set/a.bin", bytes: 3 }, Member { path: "set/b.bin", bytes: 0 }];

    /// An entry with any path, which `Builder::append_data` would refuse.
    fn entry(builder: &mut Builder<Vec<u8>>, path: &str, kind: EntryType, content: &[u8], link: Option<&str>) {
        let mut header = Header::new_gnu();
        header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
        header.set_entry_type(kind);
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        if let Some(link) = link {
            header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
        }
        header.set_cksum();
        builder.append(&header, content).unwrap();
    }

    /// Unpacks an archive of what `fill` adds; the names that came out, or the refusal.
    fn unpacked(fill: impl FnOnce(&mut Builder<Vec<u8>>)) -> Result<Vec<String>, String> {
        let folder = tempfile::tempdir().unwrap();
        let mut builder = Builder::new(Vec::new());
        fill(&mut builder);
        let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
        gzip.write_all(&builder.into_inner().unwrap()).unwrap();
        let archive = folder.path().join("set.tar.gz");
        fs::write(&archive, gzip.finish().unwrap()).unwrap();
        let out = folder.path().join("inner/out");
        fs::create_dir_all(&out).unwrap();
        unpack(&archive, &MEMBERS, &out).map_err(|error| error.to_string())?;
        let mut names: Vec<String> = fs::read_dir(out).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2, "something was written beside the folder");
        Ok(names)
    }

    fn good(builder: &mut Builder<Vec<u8>>) {
        entry(builder, "set/", EntryType::Directory, b"", None);
        entry(builder, "set/a.bin", EntryType::Regular, b"abc", None);
        entry(builder, "set/readme.html", EntryType::Regular, b"text", None);
        entry(builder, "./set/b.bin", EntryType::Regular, b"", None);
    }

    #[test]
    fn only_the_expected_files_come_out() {
        assert_eq!(unpacked(good).unwrap(), ["a.bin", "b.bin"]);
    }

    #[test]
    fn suspect_archives_are_refused() {
        let refusal = |fill: &dyn Fn(&mut Builder<Vec<u8>>)| unpacked(|builder| fill(builder)).unwrap_err();
        for path in ["../a.bin", "set/../../a.bin", "/set/a.bin"] {
            let text = refusal(&|builder| {
                entry(builder, path, EntryType::Regular, b"abc", None);
                good(builder);
            });
            assert!(text.contains("leads out"), "{path}: {text}");
        }
        for kind in [EntryType::Symlink, EntryType::Link, EntryType::Fifo, EntryType::Char] {
            let text = refusal(&|builder| entry(builder, "set/a.bin", kind, b"", Some("/etc/passwd")));
            assert!(text.contains("no regular file"), "{kind:?}: {text}");
        }
        assert!(refusal(&|builder| entry(builder, "set/a.bin", EntryType::Regular, b"abcd", None)).contains("4 bytes instead of 3"));
        assert!(refusal(&|builder| entry(builder, "set/a.bin", EntryType::Regular, b"abc", None)).contains("no \"set/b.bin\""));
        let twice = refusal(&|builder| {
            entry(builder, "set/a.bin", EntryType::Regular, b"abc", None);
            good(builder);
        });
        assert!(twice.contains("twice"), "{twice}");
        // An archive that unpacks to more than it may is cut off, and so damaged.
        let bomb = refusal(&|builder| {
            entry(builder, "set/zeros", EntryType::Regular, &vec![0; MOST_OTHER_BYTES as usize + 4096], None);
            good(builder);
        });
        assert!(bomb.contains("damaged") || bomb.contains("there is no"), "{bomb}");
    }

    #[test]
    fn damage_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let archive = folder.path().join("set.tar.gz");
        fs::write(&archive, b"no archive at all").unwrap();
        let error = unpack(&archive, &MEMBERS, folder.path()).unwrap_err().to_string();
        assert!(error.starts_with("set.tar.gz: the archive is damaged"), "{error}");
    }
}
