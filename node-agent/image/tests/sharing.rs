//! Several users of one store: imports and unpacking at once, and garbage collection beside them.

mod fixture;

use std::collections::BTreeSet;
use std::fs;
use std::sync::Barrier;

use container_image::{GarbageError, ImageStore, ImportOptions, InUse, UnpackLimits};
use fixture::{Parts, Tar, TestStore, gzip, small_parts};

#[test]
fn the_same_image_from_eight_sides() {
    let test = TestStore::new();
    let layer = (0..200).fold(Tar::new(), |tar, n| tar.file(&format!("file{n}"), &[7; 3000])).finish();
    let archive = Parts::stored("app:1", vec![layer], |layer| gzip(&layer)).oci_archive();
    let start = Barrier::new(8);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                // Each its own handle, as separate processes have.
                let store = ImageStore::open(test.dir.path()).expect("open");
                start.wait();
                let imported = store.import(&archive[..], &ImportOptions::default()).expect("import");
                let layers = store.unpack(&imported[0].image, &UnpackLimits::default()).expect("unpack");
                assert_eq!(fs::read_dir(&layers[0]).expect("list").count(), 200);
            });
        }
    });
    assert_eq!(test.store.list().expect("list").len(), 1);
    assert_eq!(fs::read_dir(test.dir.path().join("layers")).expect("list").count(), 1);
    assert!(test.is_tidy());
}

#[test]
fn garbage_is_what_no_name_and_no_container_needs() {
    let test = TestStore::new();
    let keep = test.import(&small_parts().oci_archive());
    let shared = small_parts().layers.remove(0);
    let own = Tar::new().file("own", b"own").finish();
    let go = test.import(&Parts::plain("other:1", vec![shared, own]).oci_archive());
    test.store.unpack(&keep, &UnpackLimits::default()).expect("unpack");
    test.store.unpack(&go, &UnpackLimits::default()).expect("unpack");
    assert_eq!(test.store.collect_garbage(&InUse::default()).expect("collect").blobs.len(), 0);

    test.store.remove(&"other:1".parse().expect("reference")).expect("remove");
    let running = InUse { images: BTreeSet::from([go.manifest.clone()]), ..InUse::default() };
    assert_eq!(test.store.collect_garbage(&running).expect("collect").blobs.len(), 0);

    let mounted = InUse { layers: BTreeSet::from([go.layers[1].diff_id.clone()]), ..InUse::default() };
    let collected = test.store.collect_garbage(&mounted).expect("collect");
    assert_eq!(collected.blobs.len(), 3, "manifest, configuration and the layer of its own");
    assert!(collected.layers.is_empty() && collected.blob_bytes > 1024);

    let collected = test.store.collect_garbage(&InUse::default()).expect("collect");
    assert_eq!(collected.layers, BTreeSet::from([go.layers[1].diff_id.clone()]));
    let again = test.store.image(&keep.manifest).expect("the other image is whole");
    test.store.unpack(&again, &UnpackLimits::default()).expect("unpack");
    assert!(test.store.image(&go.manifest).is_err());
}

#[test]
fn garbage_collection_keeps_away_from_work_in_progress() {
    let test = TestStore::new();
    let archive = small_parts().oci_archive();
    // A reader that looks at the store while it is read.
    let collecting = Collecting { archive: &archive, store: &test.store, refused: 0 };
    let mut reader = collecting;
    test.store.import(&mut reader, &ImportOptions::default()).expect("import");
    assert!(reader.refused > 0);
    test.store.collect_garbage(&InUse::default()).expect("idle again");
}

struct Collecting<'a> {
    archive: &'a [u8],
    store: &'a ImageStore,
    refused: usize,
}

impl std::io::Read for Collecting<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let result = self.store.collect_garbage(&InUse::default());
        assert!(matches!(result, Err(GarbageError::Busy)));
        self.refused += 1;
        self.archive.read(buffer)
    }
}

#[test]
fn an_image_whose_documents_are_unreadable_stops_the_collection() {
    let test = TestStore::new();
    let image = test.import(&small_parts().oci_archive());
    fs::write(test.dir.path().join("blobs/sha256").join(image.config_blob.digest.hex()), "{").expect("write");
    let result = test.store.collect_garbage(&InUse::default());
    assert!(matches!(result, Err(GarbageError::Image { .. })), "{result:?}");
}
