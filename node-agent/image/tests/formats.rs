//! Every format an image may come in ends as the same image, and what is sent arrives equal.

mod fixture;

use std::fs;

use container_image::{Digest, ImageConfig, ImportError, ImportOptions, Reference, UnpackLimits};
use fixture::{Parts, Tar, TestStore, descriptor, gzip, small_parts, zstd};
use serde_json::json;

fn reference(text: &str) -> Reference {
    text.parse().expect("reference")
}

#[track_caller]
fn check_small(archive: &[u8]) {
    let test = TestStore::new();
    let imported = test.store.import(archive, &ImportOptions::default()).expect("import");
    assert_eq!(imported[0].reference, reference("app:1"));
    let manifest = test.store.resolve(&reference("app:1")).expect("read").expect("known");
    let image = test.store.image(&manifest).expect("image");
    assert_eq!(image, imported[0].image);
    assert_eq!(image.config.entrypoint, ["/bin/server"]);
    let layers = test.store.unpack(&image, &UnpackLimits::default()).expect("unpack");
    assert_eq!(fs::read(layers[0].join("bin/server")).expect("base layer"), b"#!program");
    assert_eq!(fs::read(layers[1].join("etc/app.conf")).expect("upper layer"), b"key=value");
    assert!(test.is_tidy());
}

#[test]
fn all_archives_with_all_compressions() {
    let plain = small_parts();
    let layers = || plain.layers.clone();
    for parts in [
        small_parts(),
        Parts::stored("app:1", layers(), |l| gzip(&l)),
        Parts::stored("app:1", layers(), |l| zstd(&l)),
    ] {
        check_small(&parts.oci_archive());
        check_small(&gzip(&parts.oci_archive()));
        check_small(&zstd(&parts.old_docker_archive()));
        check_small(&parts.new_docker_archive());
    }
}

#[test]
fn a_directory_is_read_without_taking_more_than_the_image() {
    let (test, source) = (TestStore::new(), tempfile::tempdir().expect("directory"));
    small_parts().write_oci_directory(source.path());
    fs::write(source.path().join("blobs/sha256/other"), b"not ours").expect("write");
    let imported = test.store.import_directory(source.path(), &ImportOptions::default()).expect("import");
    assert_eq!(imported[0].image.manifest, Digest::of(&small_parts().blobs()[0]));
    assert_eq!(fs::read_dir(test.dir.path().join("blobs/sha256")).expect("list").count(), 4);
}

#[test]
fn equal_layers_of_an_old_docker_archive_are_links() {
    let layer = Tar::new().file("a", b"1").finish();
    let test = TestStore::new();
    let image = test.import(&Parts::plain("app:1", vec![layer.clone(), layer]).old_docker_archive());
    assert_eq!(image.layers.len(), 2);
    assert_eq!(image.layers[0], image.layers[1]);
}

#[test]
fn a_root_file_system_becomes_an_image() {
    let test = TestStore::new();
    let config = ImageConfig {
        command: vec!["/bin/sh".into()],
        env: vec![("A".into(), "1".into())],
        user: "7".into(),
        labels: [("a", "1"), ("b", "2"), ("c", "3")].map(|(k, v)| (k.to_owned(), v.to_owned())).into(),
        ..ImageConfig::default()
    };
    let tar = gzip(&Tar::new().file("bin/sh", b"sh").finish());
    let import =
        |name| test.store.import_rootfs(&tar[..], reference(name), &config, &ImportOptions::default());
    let first = import("base").expect("import");
    assert_eq!(first.image.config, config);
    assert_eq!(fs::read(test.unpack(&first.image).join("bin/sh")).expect("file"), b"sh");
    assert_eq!(
        import("again").expect("import").image.manifest,
        first.image.manifest,
        "equal input, equal digest"
    );
}

#[test]
fn what_is_exported_is_received_equal() {
    let (here, there) = (TestStore::new(), TestStore::new());
    let image = here.import(&Parts::stored("app:1", small_parts().layers, |l| zstd(&l)).oci_archive());
    let mut sent = Vec::new();
    here.store.export(&image, &reference("app:1"), &mut sent).expect("export");
    let received = there.store.receive(&sent[..], &reference("app:1"), &image.manifest).expect("receive");
    assert_eq!(received.image, image);
    let mut again = Vec::new();
    there.store.export(&image, &reference("app:1"), &mut again).expect("export");
    assert_eq!(again, sent, "an export is reproducible");
}

#[test]
fn another_image_than_the_announced_one_is_not_received() {
    let test = TestStore::new();
    let archive = small_parts().oci_archive();
    let result = test.store.receive(&archive[..], &reference("app:1"), &Digest::of(b"another"));
    assert!(matches!(result, Err(ImportError::Missing { .. })), "{result:?}");
    assert!(test.is_empty() && test.is_tidy());
}

#[test]
fn of_several_platforms_the_wanted_one_is_taken() {
    let mut foreign = small_parts();
    foreign.config["architecture"] = json!("riscv64");
    let own = small_parts();
    let platform = |parts: &Parts, architecture: &serde_json::Value| {
        let mut manifest = descriptor("manifest.v1+json", &parts.blobs()[0]);
        manifest["platform"] = json!({ "architecture": architecture, "os": "linux" });
        manifest
    };
    let nested = json!({ "schemaVersion": 2, "manifests": [
        platform(&foreign, &json!("riscv64")), platform(&own, &own.config["architecture"]),
    ]})
    .to_string()
    .into_bytes();
    let mut top = descriptor("index.v1+json", &nested);
    top["annotations"] = json!({ "org.opencontainers.image.ref.name": "multi:1" });
    // The foreign platform's blobs are absent, as `docker save --platform` leaves them.
    let mut files = own.oci_files();
    files.retain(|(path, _)| path != "index.json");
    files.push((fixture::blob_path(&nested), nested));
    files.push((
        "index.json".into(),
        json!({ "schemaVersion": 2, "manifests": [top] }).to_string().into_bytes(),
    ));
    let image = TestStore::new().import(&fixture::archive(&files));
    assert_eq!(image.manifest, Digest::of(&own.blobs()[0]));

    let options = ImportOptions { architecture: "s390x".into(), ..ImportOptions::default() };
    let result = TestStore::new().store.import(&fixture::archive(&files)[..], &options);
    assert!(matches!(result, Err(ImportError::Platform { .. })), "{result:?}");
}

#[test]
fn the_callers_name_wins_and_must_be_unambiguous() {
    let test = TestStore::new();
    let named = |text: &str| ImportOptions { reference: Some(reference(text)), ..ImportOptions::default() };
    let archive = small_parts().oci_archive();
    let imported = test.store.import(&archive[..], &named("other:2")).expect("import");
    assert_eq!(imported[0].reference, reference("other:2"));

    let pinned = format!("app@{}", Digest::of(b"another"));
    let result = test.store.import(&archive[..], &named(&pinned));
    assert!(matches!(result, Err(ImportError::Pinned { .. })), "{result:?}");

    let nameless = Parts::plain("latest", small_parts().layers).oci_archive();
    let result = test.store.import(&nameless[..], &ImportOptions::default());
    assert!(matches!(result, Err(ImportError::Nameless)), "a mere tag is no name: {result:?}");
}

#[test]
fn what_is_no_image_is_refused() {
    let test = TestStore::new();
    for bytes in [vec![], vec![0; 1024], Tar::new().file("a", b"b").finish()] {
        let result = test.store.import(&bytes[..], &ImportOptions::default());
        assert!(matches!(result, Err(ImportError::NotAnImage)), "{result:?}");
    }
    let result = test.store.import(&b"just some text"[..], &ImportOptions::default());
    assert!(matches!(result, Err(ImportError::Archive(_))), "{result:?}");
}
