//! Trees go through a stream and come out the same. Needs root, for owners, device nodes and `trusted.*` attributes.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File, Permissions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, PermissionsExt, lchown, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use container_checkpoint::files::{PackError, Summary, pack, unpack};
use proptest::prelude::*;
use rustix::fs::{CWD, FileType, Mode, XattrFlags, lgetxattr, llistxattr, lsetxattr, makedev, mknodat};
use tempfile::TempDir;

/// All that is promised to be kept about one name.
#[derive(Debug, PartialEq, Eq)]
struct Facts {
    kind: String,
    mode: u32,
    owner: (u32, u32),
    modified: (i64, i64),
    device: u64,
    content: Vec<u8>,
    attributes: BTreeMap<Vec<u8>, Vec<u8>>,
    /// The first of the names the file has, in order.
    same_as: PathBuf,
}

fn facts(root: &Path) -> BTreeMap<PathBuf, Facts> {
    let mut found = BTreeMap::new();
    let mut paths = vec![root.to_owned()];
    while let Some(path) = paths.pop() {
        if fs::symlink_metadata(&path).unwrap().is_dir() {
            paths.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
        found.insert(path.strip_prefix(root).unwrap().to_owned(), fact(&path));
    }
    let mut first = HashMap::new();
    for (path, fact) in &mut found {
        let inode = fs::symlink_metadata(root.join(path)).unwrap().ino();
        fact.same_as = first.entry(inode).or_insert(path.clone()).clone();
    }
    found
}

fn fact(path: &Path) -> Facts {
    let meta = fs::symlink_metadata(path).unwrap();
    let kind = meta.file_type();
    let content = if kind.is_file() {
        fs::read(path).unwrap()
    } else if kind.is_symlink() {
        fs::read_link(path).unwrap().as_os_str().as_bytes().to_vec()
    } else {
        Vec::new()
    };
    Facts {
        kind: format!("{kind:?}"),
        mode: meta.mode(),
        owner: (meta.uid(), meta.gid()),
        modified: (meta.mtime(), meta.mtime_nsec()),
        device: if kind.is_char_device() || kind.is_block_device() { meta.rdev() } else { 0 },
        content,
        attributes: attributes(path),
        same_as: PathBuf::new(),
    }
}

fn attributes(path: &Path) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut list = vec![0; 4096];
    let length = llistxattr(path, &mut list).unwrap_or(0);
    let names = list[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty());
    names
        .map(|name| {
            let mut value = vec![0; 4096];
            let length = lgetxattr(path, name, &mut value).unwrap();
            (name.to_vec(), value[..length].to_vec())
        })
        .collect()
}

fn set_attribute(path: &Path, name: &str, value: &[u8]) {
    lsetxattr(path, name, value, XattrFlags::empty()).unwrap();
}

fn age(path: &Path, seconds: u64) {
    let time = SystemTime::UNIX_EPOCH + Duration::new(seconds, 123_456_789);
    File::open(path).unwrap().set_modified(time).unwrap();
}

/// Packs and unpacks, and asserts that nothing is different.
fn through(tree: &Path) -> (TempDir, Summary) {
    let mut stream = Vec::new();
    let packed = pack(tree, &mut stream).unwrap();
    let copy = TempDir::new().unwrap();
    let unpacked = unpack(stream.as_slice(), copy.path()).unwrap();
    assert_eq!(packed, unpacked);
    assert_eq!(packed.stream_bytes, stream.len() as u64);
    assert_eq!(facts(copy.path()), facts(tree));
    let mut again = Vec::new();
    pack(copy.path(), &mut again).unwrap();
    assert!(again == stream, "equal trees make equal streams");
    (copy, packed)
}

#[test]
fn an_overlay_upper_directory_keeps_all_that_an_overlay_needs() {
    let tree = TempDir::new().unwrap();
    let at = |name: &str| tree.path().join(name);
    fs::create_dir_all(at("opaque/deep/er")).unwrap();
    set_attribute(&at("opaque"), "trusted.overlay.opaque", b"y");
    set_attribute(&at("opaque/deep"), "trusted.overlay.redirect", b"/old/name");
    mknodat(CWD, at("whiteout"), FileType::CharacterDevice, Mode::empty(), makedev(0, 0)).unwrap();
    fs::write(at("opaque/file"), b"content").unwrap();
    fs::set_permissions(at("opaque/file"), Permissions::from_mode(0o6755)).unwrap();
    lchown(at("opaque/deep"), Some(1000), Some(65535)).unwrap();
    age(&at("opaque/file"), 1_000_000);
    age(&at("opaque/deep/er"), 2_000_000);
    age(&at("opaque/deep"), 3_000_000);
    age(tree.path(), 4_000_000);
    fs::set_permissions(tree.path(), Permissions::from_mode(0o1777)).unwrap();
    let (_copy, summary) = through(tree.path());
    assert_eq!(summary.entries, 6);
}

#[test]
fn every_kind_of_file_is_kept() {
    let tree = TempDir::new().unwrap();
    let at = |name: &str| tree.path().join(name);
    let all = Mode::from_bits_truncate(0o640);
    mknodat(CWD, at("fifo"), FileType::Fifo, all, 0).unwrap();
    mknodat(CWD, at("character"), FileType::CharacterDevice, all, makedev(1, 3)).unwrap();
    mknodat(CWD, at("block"), FileType::BlockDevice, all, makedev(259, 70_000)).unwrap();
    drop(UnixListener::bind(at("socket")).unwrap());
    symlink("../anywhere/at all", at("symlink")).unwrap();
    lchown(at("symlink"), Some(7), Some(8)).unwrap();
    fs::write(at("empty"), b"").unwrap();
    fs::write(at("capable"), b"#!").unwrap();
    set_attribute(&at("capable"), "security.capability", b"\x01\0\0\x02\0\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0");
    set_attribute(&at("capable"), "user.comment", b"\0\xff");
    fs::write(at("name \u{1F980}\n\\"), b"odd").unwrap();
    through(tree.path());
}

#[test]
fn hard_links_stay_one_file() {
    let tree = TempDir::new().unwrap();
    let at = |name: &str| tree.path().join(name);
    fs::create_dir(at("dir")).unwrap();
    fs::write(at("dir/one"), vec![7; 300_000]).unwrap();
    fs::hard_link(at("dir/one"), at("two")).unwrap();
    fs::hard_link(at("two"), at("dir/three")).unwrap();
    symlink("x", at("link")).unwrap();
    fs::hard_link(at("link"), at("dir/same-link")).unwrap();
    let (copy, summary) = through(tree.path());
    assert_eq!(summary.data_bytes, 300_000);
    assert_eq!(fs::metadata(copy.path().join("two")).unwrap().nlink(), 3);
}

#[test]
fn holes_stay_holes() {
    let tree = TempDir::new().unwrap();
    let file = File::create(tree.path().join("sparse")).unwrap();
    file.set_len(64 << 20).unwrap();
    file.write_all_at(&[1; 5000], 20 << 20).unwrap();
    file.write_all_at(&[2; 5000], 40 << 20).unwrap();
    let (copy, summary) = through(tree.path());
    assert!(summary.data_bytes < 100_000, "{summary:?}");
    let used = fs::metadata(copy.path().join("sparse")).unwrap().blocks() * 512;
    assert!(used < 1 << 20, "{used}");
}

#[test]
fn another_file_system_in_the_tree_is_refused() {
    let tree = TempDir::new().unwrap();
    let mounted = tree.path().join("mounted");
    fs::create_dir(&mounted).unwrap();
    let none = nix::mount::MsFlags::empty();
    nix::mount::mount(Some("tmpfs"), &mounted, Some("tmpfs"), none, None::<&str>).unwrap();
    let error = pack(tree.path(), std::io::sink());
    nix::mount::umount(&mounted).unwrap();
    assert!(matches!(error, Err(PackError::OtherFileSystem { path }) if path == Path::new("mounted")));
}

#[test]
fn a_failing_stream_is_an_error() {
    let tree = TempDir::new().unwrap();
    fs::write(tree.path().join("file"), vec![0xab; 1 << 20]).unwrap();
    assert!(pack(tree.path(), [0; 1000].as_mut_slice()).is_err());
}

/// A small random file tree: a path of directories, and what is at its end.
#[derive(Debug, Clone)]
struct Leaf {
    path: Vec<u8>,
    /// A file of this length, else a directory.
    length: Option<usize>,
    mode: u32,
    owner: u32,
    seconds: u64,
}

fn leaf() -> impl Strategy<Value = Leaf> {
    let path = prop::collection::vec(0..4_u8, 1..5);
    let length = prop::option::of(0..700_000_usize);
    (path, length, 0..0o10000_u32, 0..65536_u32, 0..1_u64 << 33)
        .prop_map(|(path, length, mode, owner, seconds)| Leaf { path, length, mode, owner, seconds })
}

fn plant(root: &Path, leaf: &Leaf) {
    let path = leaf.path.iter().fold(root.to_owned(), |path, part| path.join(part.to_string()));
    // Another leaf may have put a file where this one needs a directory.
    if fs::create_dir_all(path.parent().unwrap()).is_err() || path.exists() {
        return;
    }
    match leaf.length {
        Some(length) => fs::write(&path, vec![leaf.path[0]; length]).unwrap(),
        None => fs::create_dir(&path).unwrap(),
    }
    lchown(&path, Some(leaf.owner), Some(leaf.owner / 2)).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(leaf.mode)).unwrap();
    age(&path, leaf.seconds);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn random_trees_come_out_the_same(leaves in prop::collection::vec(leaf(), 0..20)) {
        let tree = TempDir::new().unwrap();
        leaves.iter().for_each(|leaf| plant(tree.path(), leaf));
        through(tree.path());
    }
}
