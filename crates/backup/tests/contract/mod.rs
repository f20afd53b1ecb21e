//! What every store promises: one test for all of them, which the tests of each run.

use holdfast_backup::store::Store;
use std::io::ErrorKind;

/// Puts, reads, lists and removes in a store that is empty.
pub fn keeps_its_promises(store: &dyn Store) {
    assert_eq!(store.list("packs").unwrap(), []);
    store.put("packs/ab/1", b"hello").unwrap();
    assert_eq!(store.put("packs/ab/1", b"other").unwrap_err().kind(), ErrorKind::AlreadyExists);
    assert_eq!(store.put("packs/ab/1", b"").unwrap_err().kind(), ErrorKind::AlreadyExists);
    assert_eq!(store.read("packs/ab/1", 0, 9).unwrap(), b"hello", "it was not replaced");
    store.put("packs/2", b"").unwrap();
    store.put("packsnot/3", b"x").unwrap();
    assert_eq!(store.list("packs").unwrap(), [("packs/2".to_owned(), 0), ("packs/ab/1".to_owned(), 5)]);
    assert_eq!(store.list("packs/ab").unwrap(), [("packs/ab/1".to_owned(), 5)]);

    assert_eq!(store.read("packs/ab/1", 1, 3).unwrap(), b"ell");
    assert_eq!(store.read("packs/ab/1", 3, usize::MAX).unwrap(), b"lo");
    assert_eq!(store.read("packs/ab/1", 0, usize::MAX).unwrap(), b"hello");
    assert_eq!(store.read("packs/ab/1", 9, 3).unwrap(), b"");
    assert_eq!(store.read("packs/ab/1", 2, 0).unwrap(), b"");
    assert_eq!(store.read("packs/2", 0, 64).unwrap(), b"");
    assert_eq!(store.read("packs/2", 0, usize::MAX).unwrap(), b"");

    for (offset, length) in [(0, 0), (0, 1), (5, 9), (0, usize::MAX)] {
        assert_eq!(store.read("packs/3", offset, length).unwrap_err().kind(), ErrorKind::NotFound);
    }
    store.remove("packs/ab/1").unwrap();
    assert_eq!(store.remove("packs/ab/1").unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(store.read("packs/ab/1", 0, 1).unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(store.list("packs").unwrap(), [("packs/2".to_owned(), 0)]);
    store.put("packs/ab/1", b"again").unwrap();
    let large: Vec<u8> = (0..3_000_000_u32).flat_map(u32::to_le_bytes).collect();
    store.put("packs/large", &large).unwrap();
    assert_eq!(store.read("packs/large", 0, usize::MAX).unwrap(), large);
    assert_eq!(store.read("packs/large", 7_654_321, 70_001).unwrap(), large[7_654_321..][..70_001]);
}

/// No name leads out of the repository, or to what is not an object.
pub fn knows_its_names(store: &dyn Store) {
    for name in
        ["../x", "/etc/passwd", "a/../b", "", "a//b", ".", "a/.b", "A", "a b", "a\0", &"a".repeat(161)]
    {
        let asked = [
            store.put(name, b"x").err(),
            store.read(name, 0, 1).err(),
            store.list(name).err(),
            store.remove(name).err(),
        ];
        for refused in asked {
            assert_eq!(refused.unwrap().kind(), ErrorKind::InvalidInput, "{name}");
        }
    }
}

/// Of several who put an object at once one is told that it is his, and it is.
pub fn has_one_winner(store: &dyn Store) {
    for round in 0..8 {
        let name = format!("points/orders/{round}");
        let mut won = Vec::new();
        std::thread::scope(|scope| {
            let put = |who: u8| {
                let name = &name;
                scope.spawn(move || (who, store.put(name, &[who; 50_000])))
            };
            let putting: Vec<_> = (0..4).map(put).collect();
            for (who, ended) in putting.into_iter().map(|thread| thread.join().unwrap()) {
                match ended {
                    Ok(()) => won.push(who),
                    Err(error) => assert_eq!(error.kind(), ErrorKind::AlreadyExists, "{error}"),
                }
            }
        });
        let [winner] = won[..] else { panic!("{won:?} won") };
        assert_eq!(store.read(&name, 0, usize::MAX).unwrap(), [winner; 50_000]);
    }
}

/// More objects than one answer of a server holds are listed, in the order of their names.
pub fn lists_many(store: &(impl Store + ?Sized), many: usize) {
    let names: Vec<String> =
        (0..many).map(|number| format!("proofs/{:02x}/{number:08}", number % 7)).collect();
    std::thread::scope(|scope| {
        for part in names.chunks(many.div_ceil(4)) {
            scope.spawn(move || part.iter().for_each(|name| store.put(name, name.as_bytes()).unwrap()));
        }
    });
    let mut want: Vec<(String, u64)> = names.iter().map(|name| (name.clone(), name.len() as u64)).collect();
    want.sort();
    assert_eq!(store.list("proofs").unwrap(), want);
}
