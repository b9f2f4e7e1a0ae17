//! The tree against a plain model, its limits, and bytes that were damaged.

use super::*;

const LIMIT: u64 = 1 << 20;

fn tree() -> Tree {
    Tree::new(LIMIT, 1)
}

/// The tree's spaces as a holder would have them, folded from captures.
#[derive(Default)]
struct Spaces {
    lengths: [u64; 3],
    blocks: [BTreeMap<u64, Block>; 3],
}

impl Spaces {
    fn fold(&mut self, changes: Changes) {
        self.lengths = changes.lengths;
        for (space, blocks) in self.blocks.iter_mut().zip(changes.blocks) {
            for (at, block) in blocks {
                match block {
                    Some(block) => space.insert(at, block),
                    None => space.remove(&at),
                };
            }
        }
    }

    fn restore(&self) -> Result<Tree, Damaged> {
        Tree::restore(LIMIT, self.lengths, |space, at| {
            self.blocks[space].get(&at).cloned().unwrap_or_else(|| std::sync::Arc::new([0; BLOCK]))
        })
    }
}

#[test]
fn paths_lead_where_they_should() {
    let mut tree = tree();
    let a = tree.create(ROOT, "a", Kind::Directory, 2).unwrap();
    let file = tree.create(a, "b", Kind::File, 3).unwrap();
    for path in ["a/b", "/a/b", "./a/./b", "a/../a//b", "../a/b"] {
        assert_eq!(tree.lookup(ROOT, path), Ok(file), "{path}");
    }
    assert_eq!(tree.lookup(a, ".."), Ok(ROOT));
    assert_eq!(tree.lookup(ROOT, ""), Err(Errno::NOENT));
    assert_eq!(tree.lookup(ROOT, "a/b/c"), Err(Errno::NOTDIR));
    assert_eq!(tree.lookup(ROOT, "a/b/"), Err(Errno::NOTDIR));
    assert_eq!(tree.lookup(ROOT, "a/x/c"), Err(Errno::NOENT));
    assert_eq!(tree.lookup(ROOT, &"x".repeat(NAME_MAX + 1)), Err(Errno::NAMETOOLONG));
    assert_eq!(tree.create(ROOT, "a", Kind::File, 4), Err(Errno::EXIST));
    assert_eq!(tree.create(ROOT, "/", Kind::Directory, 4), Err(Errno::EXIST));
    assert_eq!(tree.unlink(ROOT, "a", 4), Err(Errno::ISDIR));
    assert_eq!(tree.remove_directory(ROOT, "a", 4), Err(Errno::NOTEMPTY));
    assert_eq!(tree.remove_directory(ROOT, "/", 4), Err(Errno::NOTEMPTY));
}

#[test]
fn renaming_moves_replaces_and_refuses_circles() {
    let mut tree = tree();
    let a = tree.create(ROOT, "a", Kind::Directory, 2).unwrap();
    tree.create(a, "in", Kind::Directory, 2).unwrap();
    let x = tree.create(ROOT, "x", Kind::File, 2).unwrap();
    tree.create(ROOT, "y", Kind::File, 2).unwrap();
    assert_eq!(tree.rename((ROOT, "a"), (ROOT, "a/in/a"), 3), Err(Errno::INVAL));
    assert_eq!(tree.rename((ROOT, "x"), (ROOT, "a"), 3), Err(Errno::ISDIR));
    assert_eq!(tree.rename((ROOT, "a"), (ROOT, "x"), 3), Err(Errno::NOTDIR));
    assert_eq!(tree.rename((ROOT, "x"), (ROOT, "y"), 3), Ok(()));
    assert_eq!(tree.lookup(ROOT, "y"), Ok(x));
    assert_eq!(tree.lookup(ROOT, "x"), Err(Errno::NOENT));
    assert_eq!(tree.rename((ROOT, "y"), (a, "z"), 3), Ok(()));
    assert_eq!(tree.lookup(ROOT, "a/z"), Ok(x));
    assert_eq!(tree.rename((a, "z"), (a, "z"), 3), Ok(()));
}

#[test]
fn a_removed_file_lives_while_it_is_open() {
    let mut tree = tree();
    let file = tree.create(ROOT, "f", Kind::File, 2).unwrap();
    tree.opened(file).unwrap();
    tree.write(file, 0, &[7; 5000], 3).unwrap();
    let used = tree.used();
    tree.unlink(ROOT, "f", 4).unwrap();
    assert_eq!(tree.used(), used);
    let mut byte = [0];
    assert_eq!(tree.read(file, 4999, &mut byte), Ok(1));
    assert_eq!(byte, [7]);
    tree.closed(file);
    assert_eq!(tree.used(), RECORD as u64);
    assert_eq!(tree.read(file, 0, &mut byte), Err(Errno::NOENT));
}

#[test]
fn a_directory_that_was_removed_while_open_takes_no_names() {
    let mut tree = tree();
    let gone = tree.create(ROOT, "d", Kind::Directory, 2).unwrap();
    tree.opened(gone).unwrap();
    tree.remove_directory(ROOT, "d", 3).unwrap();
    assert_eq!(tree.create(gone, "f", Kind::File, 4), Err(Errno::NOENT));
    tree.create(ROOT, "g", Kind::File, 4).unwrap();
    assert_eq!(tree.rename((ROOT, "g"), (gone, "g"), 4), Err(Errno::NOENT));
    tree.closed(gone);
    assert_eq!(tree.used(), 2 * RECORD as u64);
}

#[test]
fn the_limit_is_kept_and_told() {
    let mut tree = tree();
    let file = tree.create(ROOT, "f", Kind::File, 2).unwrap();
    let most = LIMIT as usize - 2 * RECORD;
    let written = tree.write(file, 0, &vec![1; LIMIT as usize], 3).unwrap();
    assert_eq!(written, most / BLOCK * BLOCK);
    assert_eq!(tree.write(file, written as u64, &[1], 3), Err(Errno::NOSPC));
    assert_eq!(tree.write(file, LIMIT, &[1], 3), Err(Errno::FBIG));
    assert_eq!(tree.write(file, u64::MAX, &[1], 3), Err(Errno::FBIG));
    assert_eq!(tree.set_size(file, LIMIT + 1, 3), Err(Errno::FBIG));
    let mut made = 0;
    while tree.create(ROOT, &format!("e{made}"), Kind::File, 4).is_ok() {
        made += 1;
    }
    assert!(made > 0 && tree.used() <= LIMIT);
    tree.unlink(ROOT, "f", 5).unwrap();
    assert!(tree.create(ROOT, "again", Kind::File, 6).is_ok());
}

#[test]
fn what_was_cut_reads_as_zeros_when_the_file_grows_again() {
    let mut tree = tree();
    let file = tree.create(ROOT, "f", Kind::File, 2).unwrap();
    tree.write(file, 0, &[9; 3 * BLOCK], 3).unwrap();
    tree.set_size(file, 100, 4).unwrap();
    tree.set_size(file, 2 * BLOCK as u64, 5).unwrap();
    let mut bytes = vec![1; 3 * BLOCK];
    assert_eq!(tree.read(file, 0, &mut bytes), Ok(2 * BLOCK));
    assert!(bytes[..100].iter().all(|&byte| byte == 9));
    assert!(bytes[100..2 * BLOCK].iter().all(|&byte| byte == 0));
}

#[test]
fn listings_go_on_where_they_were_while_names_come_and_go() {
    let mut tree = tree();
    for name in ["a", "b", "c", "d"] {
        tree.create(ROOT, name, Kind::File, 2).unwrap();
    }
    let first: Vec<_> = tree.entries(ROOT, 0).unwrap().take(4).collect();
    let names: Vec<_> = first.iter().map(|entry| entry.name.as_str()).collect();
    assert_eq!(names, [".", "..", "a", "b"]);
    tree.unlink(ROOT, "a", 3).unwrap();
    tree.unlink(ROOT, "c", 3).unwrap();
    let rest: Vec<_> = tree.entries(ROOT, first[3].next).unwrap().map(|e| e.name).collect();
    assert_eq!(rest, ["d"]);
}

#[test]
fn a_small_change_in_a_big_file_is_a_small_diff() {
    let mut tree = tree();
    let file = tree.create(ROOT, "f", Kind::File, 2).unwrap();
    tree.write(file, 0, &vec![1; 100 * BLOCK], 3).unwrap();
    tree.capture();
    assert!(!tree.is_dirty());
    tree.write(file, 50 * BLOCK as u64, &[2], 4).unwrap();
    let changes = tree.capture();
    assert_eq!(changes.blocks.map(|blocks| blocks.len()), [1, 1, 1]);
}

/// A small generator for the tests here; its numbers are the same in every run.
struct Draw(u64);

impl Draw {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) % n
    }

    fn path(&mut self) -> String {
        let parts = 1 + self.below(3);
        (0..parts).map(|_| format!("/{}", ["a", "b", "c", "d"][self.below(4) as usize])).collect()
    }
}

#[test]
fn any_history_restores_to_what_it_was() {
    for seed in 0..40 {
        let mut draw = Draw(seed);
        let mut tree = tree();
        let mut spaces = Spaces::default();
        for step in 0..400 {
            let (path, other) = (draw.path(), draw.path());
            let found = tree.lookup(ROOT, &path);
            let _ = match (draw.below(9), found) {
                (0 | 1, _) => tree.create(ROOT, &path, Kind::File, step).map(drop),
                (2, _) => tree.create(ROOT, &path, Kind::Directory, step).map(drop),
                (3, _) => tree.unlink(ROOT, &path, step),
                (4, _) => tree.remove_directory(ROOT, &path, step),
                (5, _) => tree.rename((ROOT, &path), (ROOT, &other), step),
                (6, Ok(ino)) => tree.set_size(ino, draw.below(30_000), step),
                (_, Ok(ino)) => {
                    let bytes = vec![step as u8; draw.below(20_000) as usize];
                    tree.write(ino, draw.below(40_000), &bytes, step).map(drop)
                }
                _ => Ok(()),
            };
            if draw.below(20) == 0 {
                spaces.fold(tree.capture());
            }
        }
        spaces.fold(tree.capture());
        let mut restored = spaces.restore().unwrap();
        assert_eq!(restored.listing(), tree.listing(), "seed {seed}");
        assert_eq!(restored.used(), tree.used());
        assert!(!restored.is_dirty());
        // It must go on as well as the first one.
        let _ = restored.create(ROOT, "/new", Kind::File, 1);
        let ino = restored.lookup(ROOT, "/new").unwrap();
        restored.write(ino, 0, &[1; BLOCK], 2).unwrap();
        spaces.fold(restored.capture());
        assert_eq!(spaces.restore().unwrap().listing(), restored.listing(), "seed {seed}");
    }
}

#[test]
fn damaged_bytes_are_refused_or_harmless() {
    let mut tree = tree();
    let directory = tree.create(ROOT, "d", Kind::Directory, 2).unwrap();
    let file = tree.create(directory, "f", Kind::File, 2).unwrap();
    tree.write(file, 0, &[1; 3 * BLOCK], 3).unwrap();
    let mut spaces = Spaces::default();
    spaces.fold(tree.capture());
    let mut refused = 0;
    for space in [1, 2] {
        for at in 0..BLOCK {
            for value in [0, 1, 2, 5, 0x80, 0xff] {
                let whole = spaces.blocks[space][&0].clone();
                let mut bytes = *whole;
                bytes[at] = value;
                spaces.blocks[space].insert(0, std::sync::Arc::new(bytes));
                match spaces.restore() {
                    Ok(mut tree) => {
                        tree.free_orphans();
                        let _ = tree.create(ROOT, "new", Kind::File, 3);
                    }
                    Err(Damaged(_)) => refused += 1,
                }
                spaces.blocks[space].insert(0, whole);
            }
        }
    }
    assert!(refused > 100, "{refused}");
    spaces.lengths = [u64::MAX; 3];
    assert!(spaces.restore().is_err());
}
