//! A folder keeps what every store promises.

#![expect(clippy::unwrap_used, reason = "tests")]

mod contract;

use holdfast_backup::store::Folder;

#[test]
fn a_folder_keeps_its_promises() {
    let place = tempfile::tempdir().unwrap();
    let folder = Folder::open(place.path()).unwrap();
    contract::keeps_its_promises(&folder);
    contract::knows_its_names(&folder);
    contract::has_one_winner(&folder);
    contract::lists_many(&folder, 1_234);
    assert_eq!(std::fs::read_dir(place.path().join("tmp")).unwrap().count(), 0);
}
