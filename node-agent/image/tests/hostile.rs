//! Archives that are damaged or mean harm: nothing leaves the layer, nothing half-imported stays, limits hold.

mod fixture;

use std::fs;
use std::io;

use container_image::{
    Digest, EntryError, Image, ImportError, ImportOptions, LayerError, UnpackError, UnpackLimits,
};
use fixture::{Parts, Tar, TestStore, gzip, header, small_parts, zstd};
use tar::EntryType;

fn unpack_error(test: &TestStore, image: &Image, limits: &UnpackLimits) -> LayerError {
    match test.store.unpack(image, limits) {
        Err(UnpackError::Layer { cause, .. }) => cause,
        other => panic!("{other:?}"),
    }
}

/// Unpacks a layer that must be refused, and checks that nothing of it is left.
#[track_caller]
fn refused(layer: Tar) -> EntryError {
    let test = TestStore::new();
    let image = test.import(&Parts::plain("bad:1", vec![layer.finish()]).oci_archive());
    let error = unpack_error(&test, &image, &UnpackLimits::default());
    assert_eq!(fs::read_dir(test.dir.path().join("layers")).expect("list").count(), 0);
    assert!(test.is_tidy());
    match error {
        LayerError::Entry { cause, .. } => cause,
        other => panic!("{other:?}"),
    }
}

#[test]
fn dot_dot_is_refused() {
    assert!(matches!(refused(Tar::new().file("../escaped", b"x")), EntryError::Outside));
    assert!(matches!(refused(Tar::new().file("a/../../escaped", b"x")), EntryError::Outside));
    assert!(matches!(
        refused(Tar::new().file("a", b"").hard_link("b", "../../etc/passwd")),
        EntryError::Outside
    ));
    assert!(matches!(refused(Tar::new().file("a/.wh...", b"")), EntryError::Outside));
}

#[test]
fn an_absolute_path_is_within_the_layer() {
    let test = TestStore::new();
    let layer = Tar::new().file("/etc/dray-test-absolute", b"inside").finish();
    let root = test.unpack(&test.import(&Parts::plain("a:1", vec![layer]).oci_archive()));
    assert_eq!(fs::read(root.join("etc/dray-test-absolute")).expect("file"), b"inside");
    assert!(!fs::exists("/etc/dray-test-absolute").expect("look"));
}

#[test]
fn symbolic_links_lead_within_the_layer_only() {
    let outside = tempfile::tempdir().expect("directory");
    fs::write(outside.path().join("secret"), b"secret").expect("write");
    let target = outside.path().to_str().expect("path");
    let test = TestStore::new();
    let layer = Tar::new()
        .dir(&target[1..])
        .symlink("absolute", target)
        .symlink("climbing", &format!("../../../../../../../..{target}"))
        .file("absolute/written", b"1")
        .file("climbing/also", b"2");
    let root = test.unpack(&test.import(&Parts::plain("a:1", vec![layer.finish()]).oci_archive()));
    assert_eq!(fs::read_dir(outside.path()).expect("list").count(), 1, "nothing came out");
    assert_eq!(fs::read(root.join(&target[1..]).join("written")).expect("file"), b"1");
    assert_eq!(fs::read(root.join(&target[1..]).join("also")).expect("file"), b"2");

    // The same place does not exist within this layer, so there is nothing to link to.
    let link = Tar::new().symlink("absolute", target).hard_link("stolen", "absolute/secret");
    assert!(matches!(refused(link), EntryError::Io { .. }));
}

#[test]
fn a_file_replaces_a_link_instead_of_following_it() {
    let outside = tempfile::NamedTempFile::new().expect("file");
    let target = outside.path().to_str().expect("path");
    let test = TestStore::new();
    let layer = Tar::new().symlink("config", target).file("config", b"new").finish();
    let root = test.unpack(&test.import(&Parts::plain("a:1", vec![layer]).oci_archive()));
    assert_eq!(fs::read(root.join("config")).expect("file"), b"new");
    assert_eq!(fs::read(outside.path()).expect("file"), b"");
}

#[test]
fn attributes_that_steer_overlayfs_are_left_out() {
    let test = TestStore::new();
    let layer = Tar::new()
        .pax(&[("SCHILY.xattr.trusted.overlay.redirect", "/etc"), ("SCHILY.xattr.user.note", "kept")])
        .dir("d/")
        .finish();
    let root = test.unpack(&test.import(&Parts::plain("a:1", vec![layer]).oci_archive()));
    let mut value = [0_u8; 16];
    let note = rustix::fs::getxattr(root.join("d"), "user.note", &mut value[..]).expect("attribute");
    assert_eq!(&value[..note], b"kept");
    assert!(rustix::fs::getxattr(root.join("d"), "trusted.overlay.redirect", &mut value[..]).is_err());
}

#[test]
fn unknown_kinds_and_impossible_ids_are_refused() {
    assert!(matches!(
        refused(Tar::new().entry("a", EntryType::new(b'V'), 0o644, b"")),
        EntryError::Kind(b'V')
    ));
    let mut nobody = header(EntryType::Regular, 0o644);
    nobody.set_uid(u64::from(u32::MAX));
    assert!(matches!(refused(Tar::new().raw("a", nobody, b"")), EntryError::Field { field: "uid" }));
    assert!(matches!(refused(Tar::new().symlink("a", "")), EntryError::Field { field: "link" }));
}

#[test]
fn bombs_stop_at_the_limit() {
    let bomb = Tar::new().file("zeros", &vec![0; 64 << 20]).finish();
    let limits = UnpackLimits { max_bytes: 1 << 20, ..UnpackLimits::default() };
    for compress in [gzip, zstd] {
        let test = TestStore::new();
        let parts = Parts::stored("bomb:1", vec![bomb.clone()], |layer| compress(&layer));
        assert!(parts.layers[0].len() < 1 << 20);
        let image = test.import(&parts.oci_archive());
        let error = unpack_error(&test, &image, &limits);
        assert!(format!("{error:?}").contains("limit of 1048576 bytes"), "{error:?}");
        assert!(test.is_tidy());
    }
}

#[test]
fn an_archive_that_is_a_bomb_stops_at_the_limit() {
    let test = TestStore::new();
    let archive = gzip(&Tar::new().file("zeros", &vec![0; 64 << 20]).finish());
    let options = ImportOptions { max_bytes: 1 << 20, ..ImportOptions::default() };
    let result = test.store.import(&archive[..], &options);
    let Err(ImportError::Entry { entry, cause }) = result else { panic!("{result:?}") };
    assert_eq!((entry.as_str(), cause.kind()), ("zeros", io::ErrorKind::FileTooLarge));
    assert!(test.is_empty() && test.is_tidy());
}

#[test]
fn too_many_entries_stop_at_the_limit() {
    let test = TestStore::new();
    let layer = (0..11).fold(Tar::new(), |tar, n| tar.file(&format!("f{n}"), b"")).finish();
    let image = test.import(&Parts::plain("many:1", vec![layer]).oci_archive());
    let limits = UnpackLimits { max_entries: 10, ..UnpackLimits::default() };
    assert!(matches!(unpack_error(&test, &image, &limits), LayerError::Archive(_)));
    let enough = UnpackLimits { max_entries: 11, ..UnpackLimits::default() };
    test.store.unpack(&image, &enough).expect("exactly as many as allowed");
}

#[test]
fn a_wrong_digest_is_refused_and_nothing_stays() {
    let test = TestStore::new();
    let mut files = small_parts().oci_files();
    let layer = files.iter_mut().rfind(|(path, _)| path.starts_with("blobs")).expect("blob");
    layer.1[600] ^= 1;
    let expected = layer.0.clone();
    let result = test.store.import(&fixture::archive(&files)[..], &ImportOptions::default());
    let Err(ImportError::WrongDigest { entry, .. }) = result else { panic!("{result:?}") };
    assert_eq!(entry, expected);
    assert!(test.is_empty() && test.is_tidy());
}

#[test]
fn a_wrong_diff_id_is_refused_at_unpacking() {
    let test = TestStore::new();
    let mut parts = small_parts();
    parts.config["rootfs"]["diff_ids"][0] = parts.config["rootfs"]["diff_ids"][1].clone();
    let image = test.import(&parts.oci_archive());
    assert!(matches!(unpack_error(&test, &image, &UnpackLimits::default()), LayerError::DiffId { .. }));
}

#[test]
fn documents_that_disagree_are_refused() {
    let mut parts = small_parts();
    parts.config["rootfs"]["diff_ids"] = serde_json::json!([]);
    let test = TestStore::new();
    let result = test.store.import(&parts.oci_archive()[..], &ImportOptions::default());
    assert!(matches!(result, Err(ImportError::Image { .. })), "{result:?}");
    assert!(test.is_empty() && test.is_tidy());
}

#[test]
fn an_archive_cut_anywhere_leaves_nothing() {
    let compressed = Parts::stored("app:1", small_parts().layers, |layer| gzip(&layer));
    for archive in
        [small_parts().oci_archive(), small_parts().old_docker_archive(), gzip(&compressed.oci_archive())]
    {
        // The two zero blocks at the end of a tar carry nothing.
        let whole = if archive.starts_with(&[0x1f]) { archive.len() } else { archive.len() - 1024 };
        let test = TestStore::new();
        for length in (0..whole).step_by(37) {
            let result = test.store.import(&archive[..length], &ImportOptions::default());
            assert!(result.is_err(), "{length} of {whole} bytes");
            assert!(test.is_empty() && test.is_tidy(), "{length} of {whole} bytes");
        }
    }
}

#[test]
fn a_layer_cut_anywhere_leaves_nothing() {
    let layer = Tar::new().dir("a/").file("a/b", &[1; 3000]).symlink("c", "a/b").finish();
    let diff_id = Digest::of(&layer);
    for compress in [|bytes: &[u8]| bytes.to_vec(), gzip, zstd] {
        let stored = compress(&layer);
        for length in (1..stored.len()).step_by(61) {
            let mut parts = Parts::plain("cut:1", vec![stored[..length].to_vec()]);
            parts.config["rootfs"]["diff_ids"] = serde_json::json!([diff_id]);
            let test = TestStore::new();
            let image = test.import(&parts.oci_archive());
            unpack_error(&test, &image, &UnpackLimits::default());
            assert_eq!(fs::read_dir(test.dir.path().join("layers")).expect("list").count(), 0);
            assert!(test.is_tidy(), "{length} of {} bytes", stored.len());
        }
    }
}

#[test]
fn a_document_cannot_name_files_outside_of_the_directory() {
    let (test, source) = (TestStore::new(), tempfile::tempdir().expect("directory"));
    let contents = r#"[{"Config":"../../../../../../etc/hostname","RepoTags":["a:1"],"Layers":[]}]"#;
    fs::write(source.path().join("manifest.json"), contents).expect("write");
    let result = test.store.import_directory(source.path(), &ImportOptions::default());
    assert!(matches!(result, Err(ImportError::Entry { .. })), "{result:?}");
}
