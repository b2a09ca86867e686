//! What an unpacked layer looks like, and that overlayfs understands it. Runs as root on a real file system.

mod fixture;

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use fixture::{Parts, Tar, TestStore, header};
use rustix::fs::{getxattr, makedev};
use tar::EntryType;

fn unpack(layer: Tar) -> (TestStore, PathBuf) {
    let test = TestStore::new();
    let image = test.import(&Parts::plain("a:1", vec![layer.finish()]).oci_archive());
    let root = test.unpack(&image);
    (test, root)
}

fn is_whiteout(path: &Path) -> bool {
    let metadata = fs::symlink_metadata(path).expect("whiteout");
    metadata.file_type().is_char_device() && metadata.rdev() == makedev(0, 0)
}

fn is_opaque(path: &Path) -> bool {
    let mut value = [0_u8; 4];
    getxattr(path, "trusted.overlay.opaque", &mut value[..]).is_ok_and(|length| &value[..length] == b"y")
}

#[test]
fn metadata_is_kept() {
    let mut owned = header(EntryType::Regular, 0o4751);
    owned.set_uid(999);
    owned.set_gid(70_000);
    owned.set_size(2);
    let mut root_dir = header(EntryType::Directory, 0o711);
    root_dir.set_gid(5);
    let layer = Tar::new()
        .raw("./", root_dir, b"")
        .entry("tmp/", EntryType::Directory, 0o1777, b"")
        .pax(&[("mtime", "12.25"), ("SCHILY.xattr.user.a", "b")])
        .raw("tmp/file", owned, b"hi")
        .symlink("link", "/nowhere/at/all")
        .hard_link("tmp/again", "tmp/file")
        .device("null", 1, 3)
        .entry("fifo", EntryType::Fifo, 0o600, b"");
    let (_test, root) = unpack(layer);

    let meta = |path: &str| fs::symlink_metadata(root.join(path)).expect("metadata");
    let file = meta("tmp/file");
    assert_eq!((file.uid(), file.gid(), file.mode() & 0o7777), (999, 70_000, 0o4751));
    assert_eq!((file.mtime(), file.mtime_nsec()), (12, 250_000_000));
    assert_eq!(file.ino(), meta("tmp/again").ino());
    assert_eq!((meta("tmp").mode() & 0o7777, meta("tmp").mtime()), (0o1777, 1_000_000));
    assert_eq!((meta("").mode() & 0o7777, meta("").gid(), meta("").mtime()), (0o711, 5, 1_000_000));
    assert_eq!(fs::read_link(root.join("link")).expect("link"), Path::new("/nowhere/at/all"));
    assert_eq!((meta("null").rdev(), meta("null").mode() & 0o777), (makedev(1, 3), 0o640));
    assert!(meta("fifo").file_type().is_fifo());
    let mut value = [0_u8; 4];
    assert_eq!(getxattr(root.join("tmp/file"), "user.a", &mut value[..]), Ok(1));
}

#[test]
fn long_names_and_implied_directories() {
    let name = format!("{}/{}", "d".repeat(120), "f".repeat(120));
    let (_test, root) = unpack(Tar::new().pax(&[("path", &name)]).file("short", b"long"));
    assert_eq!(fs::read(root.join(&name)).expect("file"), b"long");
    let implied = fs::metadata(root.join("d".repeat(120))).expect("directory");
    assert_eq!((implied.mode() & 0o7777, implied.uid()), (0o755, 0));
}

#[test]
fn the_last_of_several_entries_counts() {
    let layer = Tar::new()
        .dir("a/")
        .file("a/inner", b"1")
        .file("a", b"now a file")
        .file("b", b"now a directory")
        .dir("b/")
        .file("b/inner", b"2")
        .file("c/inner", b"3")
        .symlink("c", "b")
        .file("c/through", b"4");
    let (_test, root) = unpack(layer);
    assert_eq!(fs::read(root.join("a")).expect("a"), b"now a file");
    assert_eq!(fs::read(root.join("b/inner")).expect("b"), b"2");
    assert_eq!(fs::read(root.join("b/through")).expect("c"), b"4");
}

#[test]
fn whiteouts_take_overlayfs_form() {
    let layer = Tar::new()
        .dir("d/")
        .file("d/.wh.gone", b"")
        .dir("opaque/")
        .file("opaque/.wh..wh..opq", b"")
        .file("opaque/new", b"")
        .file(".wh.replaced", b"")
        .dir("replaced/")
        .dir("later/")
        .file(".wh.later", b"")
        .file(".wh.implied", b"")
        .file("implied/file", b"")
        .file(".wh.file", b"")
        .file("file", b"new")
        .file(".wh..wh.plnk", b"");
    let (_test, root) = unpack(layer);
    assert!(is_whiteout(&root.join("d/gone")));
    assert!(!is_opaque(&root.join("d")));
    for dir in ["opaque", "replaced", "later", "implied"] {
        assert!(is_opaque(&root.join(dir)), "{dir}");
    }
    assert_eq!(fs::read(root.join("file")).expect("file"), b"new");
    let marks = fs::read_dir(&root).expect("list").flatten();
    assert!(marks.into_iter().all(|entry| !entry.file_name().to_string_lossy().starts_with(".wh.")));
}

/// The kernel's overlayfs shows what the layers mean.
#[test]
fn overlayfs_agrees() {
    let base = Tar::new()
        .file("kept", b"base")
        .file("removed", b"base")
        .file("dir/hidden", b"base")
        .file("swapped/hidden", b"base")
        .finish();
    let upper = Tar::new()
        .file(".wh.removed", b"")
        .dir("dir/")
        .file("dir/.wh..wh..opq", b"")
        .file("dir/new", b"upper")
        .file(".wh.swapped", b"")
        .dir("swapped/")
        .finish();
    let test = TestStore::new();
    let image = test.import(&Parts::plain("a:1", vec![base, upper]).oci_archive());
    let layers = test.store.unpack(&image, &container_image::UnpackLimits::default()).expect("unpack");
    // A mount namespace of its own: the mount goes with the process.
    let script = r#"mount -t overlay none -o "lowerdir=$1:$2" /mnt && cd /mnt && find . -type f | sort"#;
    let output = Command::new("unshare")
        .args(["--mount", "sh", "-c", script, "sh"])
        .args([&layers[1], &layers[0]])
        .output()
        .expect("unshare");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(String::from_utf8_lossy(&output.stdout), "./dir/new\n./kept\n");
}

#[test]
fn ten_thousand_entries() {
    let mut tar = Tar::new();
    for n in 0..10_000 {
        let dir = n / 100;
        tar = tar.file(&format!("dir{dir}/file{n}"), b"content");
    }
    let started = std::time::Instant::now();
    let (_test, root) = unpack(tar);
    println!("10,000 entries imported and unpacked in {:?}", started.elapsed());
    assert_eq!(fs::read_dir(&root).expect("list").count(), 100);
    assert_eq!(fs::read(root.join("dir99/file9999")).expect("last"), b"content");
}
