//! Everything a program can see of a tree, by path: for the tests and the fuzzer.

use std::collections::BTreeMap;

use super::{Kind, ROOT, Stat, Tree};

/// How much of a file is looked at: a file with holes may be longer than any memory.
const LOOKED_AT: u64 = 1 << 20;

impl Tree {
    /// Each path with what is there: its record and, of a file, its first bytes.
    pub(crate) fn listing(&self) -> BTreeMap<String, (Stat, Vec<u8>)> {
        let mut all = BTreeMap::new();
        let mut waiting = vec![(ROOT, String::new())];
        while let Some((ino, path)) = waiting.pop() {
            for entry in self.entries(ino, 2).expect("it is a directory") {
                let path = format!("{path}/{}", entry.name);
                let stat = self.stat(entry.ino).expect("it is listed");
                let mut bytes = Vec::new();
                match entry.kind {
                    Kind::File => {
                        bytes.resize(stat.size.min(LOOKED_AT) as usize, 0);
                        assert_eq!(self.read(entry.ino, 0, &mut bytes), Ok(bytes.len()));
                    }
                    Kind::Directory => waiting.push((entry.ino, path.clone())),
                }
                all.insert(path, (stat, bytes));
            }
        }
        all
    }
}
