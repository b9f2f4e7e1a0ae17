//! Images and diffs against a plain model of bytes; encodings against golden and damaged bytes.

use std::string::ToString;

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use jizoku_types::limits::{BLOCK, PART_MAX, STATE_MAX};

use super::*;
use crate::dice::Dice;

type Plain = BTreeMap<String, Vec<u8>>;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(hex: &str) -> Vec<u8> {
    let digits = hex.as_bytes().chunks(2).map(|pair| core::str::from_utf8(pair).unwrap());
    digits.map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect()
}

/// The image of `plain`, made in one go.
fn image_of(plain: &Plain) -> Image {
    let mut builder = DiffBuilder::new(Some(Image::empty()));
    for (name, bytes) in plain {
        builder.bytes(name, bytes);
    }
    let mut image = Image::empty();
    image.apply_unrooted(&builder.finish()).expect("within the limits");
    image
}

fn check_equal(image: &Image, plain: &Plain) {
    assert_eq!(image.spaces().count(), plain.len());
    for (name, bytes) in plain {
        assert!(image.read_all(name).as_ref() == Some(bytes), "space {name}");
    }
    assert_eq!(image.root(), image_of(plain).root(), "the root depends on content only");
    let size: usize = plain.values().map(Vec::len).sum();
    assert_eq!(image.size(), ByteCount(size as u64));
}

/// Changes the model and tells the builder the same.
fn mutate(dice: &mut Dice, plain: &mut Plain, builder: &mut DiffBuilder, knows_base: bool) {
    let name = ["a", "globals", "memory.0"][dice.below(3) as usize];
    let len_max = if dice.chance(10) { 400 } else { 24 } * BLOCK as u64;
    match dice.below(10) {
        0 => {
            plain.remove(name);
            builder.drop_space(name);
        }
        1..=3 => {
            let len = dice.below(len_max) as usize;
            plain.entry(name.into()).or_default().resize(len, 0);
            builder.resize(name, len as u64);
        }
        4 => {
            let bytes = dice.below(3 * BLOCK as u64) as usize;
            let bytes = dice.bytes(bytes);
            builder.bytes(name, &bytes);
            plain.insert(name.into(), bytes);
        }
        _ => {
            let Some(bytes) = plain.get_mut(name).filter(|bytes| !bytes.is_empty()) else { return };
            if !knows_base {
                builder.resize(name, bytes.len() as u64);
            }
            let index = dice.below(block_count(bytes.len() as u64)) as usize;
            let end = bytes.len().min((index + 1) * BLOCK);
            let block = &mut bytes[index * BLOCK..end];
            match dice.below(3) {
                0 => block.fill(0),
                1 => block[0] ^= dice.below(2) as u8,
                _ => block.copy_from_slice(&dice.bytes(block.len())),
            }
            builder.block(name, index as u32, block);
        }
    }
}

#[test]
fn with_a_base_only_real_changes_are_in_the_diff() {
    let mut bytes = Dice::new(3).bytes(20 * BLOCK + 5);
    bytes[3 * BLOCK..5 * BLOCK].fill(0);
    let base = image_of(&Plain::from([("a".into(), bytes.clone())]));
    let mut builder = DiffBuilder::new(Some(base.clone()));
    builder.bytes("a", &bytes).block("a", 7, &[1]).block("a", 7, &bytes[7 * BLOCK..8 * BLOCK]);
    assert!(builder.finish().is_empty());
    bytes[19 * BLOCK] ^= 1;
    let mut builder = DiffBuilder::new(Some(base.clone()));
    builder.bytes("a", &bytes);
    let diff = builder.finish();
    assert_eq!(diff.writes("a").iter().map(|write| write.0).collect::<Vec<_>>(), [19]);
    let mut image = base.clone();
    image.apply_unrooted(&diff).expect("fits");
    assert!(Diff::between(&base, &image) == diff);
}

#[test]
fn what_is_cut_and_grown_again_is_zero() {
    let plain = Plain::from([("a".into(), vec![1; 5 * BLOCK])]);
    for knows_base in [true, false] {
        let mut image = image_of(&plain);
        let mut builder = DiffBuilder::new(knows_base.then(|| image.clone()));
        builder.resize("a", 2 * BLOCK as u64 + 1).resize("a", 4 * BLOCK as u64);
        builder.drop_space("b").resize("b", 9);
        image.apply_unrooted(&builder.finish()).expect("fits");
        let mut expected = vec![1; 2 * BLOCK + 1];
        expected.resize(4 * BLOCK, 0);
        check_equal(&image, &Plain::from([("a".into(), expected), ("b".into(), vec![0; 9])]));
    }
}

#[test]
fn zero_digests_are_what_zeros_hash_to() {
    let mut expected = Digest(*blake3::hash(&[0; BLOCK]).as_bytes());
    for level in 0..=LEVELS_MAX {
        assert_eq!(hex(&zero_digest(level).0), hex(&expected.0), "level {level}");
        expected = node_digest(&[expected; FANOUT]);
    }
}

#[test]
fn images_follow_a_plain_model() {
    for seed in 0..150 {
        let mut dice = Dice::new(seed);
        let mut plain = Plain::new();
        let mut image = Image::empty();
        for round in 0..8 {
            let (old_plain, old) = (plain.clone(), image.clone());
            let knows_base = dice.chance(70);
            let mut builder = DiffBuilder::new(knows_base.then(|| image.clone()));
            for _ in 0..1 + dice.below(6) {
                mutate(&mut dice, &mut plain, &mut builder, knows_base);
            }
            let diff = builder.finish();
            image.apply_unrooted(&diff).unwrap_or_else(|e| panic!("{seed}/{round}: {e}"));
            check_equal(&image, &plain);
            check_equal(&old, &old_plain);
            check_roads(&mut dice, &old, &image, &diff);
        }
    }
}

/// All ways from `old` to `new` arrive there: re-encoded, compared, surveyed.
fn check_roads(dice: &mut Dice, old: &Image, new: &Image, diff: &Diff) {
    let part_max = if dice.chance(50) { CUT_MIN } else { PART_MAX };
    let cuts = diff.cut(part_max);
    let mut order: Vec<u32> = (0..cuts.parts()).collect();
    for at in (1..order.len()).rev() {
        order.swap(at, dice.below(at as u64 + 1) as usize);
    }
    let mut assembler = Assembler::new(cuts.parts()).expect("a sane number of parts");
    for index in order {
        let part = diff.encode_part(&cuts, index);
        assert!(part.bytes().len() <= part_max);
        assert!(!assembler.is_complete());
        assembler.add(index, &part).expect("own encoding");
    }
    assert_eq!(assembler.finish().as_ref(), Ok(diff));
    let (there, back) = survey(old, new);
    for (road, from, to) in
        [(Diff::between(old, new), old, new), (there, old, new), (back, new, old)]
    {
        let mut image = from.clone();
        image.apply(&road, to.root()).expect("leads to the same root");
    }
}

/// Finds out by questions only what leads from `local` to `remote`, and back.
fn survey(local: &Image, remote: &Image) -> (Diff, Diff) {
    let mut survey = Survey::new(local.clone(), remote.root());
    let mut found = Vec::new();
    while let Some(question) = survey.ask() {
        match &question {
            Question::Outline => {
                found.extend(survey.outline(remote.outline()).expect("the truth"));
            }
            Question::Nodes { space, level, indices } => {
                assert!(indices.len() <= NODES_PER_QUESTION);
                let there = remote.space(space.as_str()).expect("only its spaces are asked for");
                let nodes: Vec<_> =
                    indices.iter().map(|i| there.node(*level, *i).expect("it exists")).collect();
                let mut lie = nodes.clone();
                lie[0][3].0[7] ^= 1;
                assert_eq!(survey.nodes(space, *level, indices, &lie), Err(Lie));
                found.extend(survey.nodes(space, *level, indices, &nodes).expect("the truth"));
                assert_eq!(survey.nodes(space, *level, indices, &nodes), Ok(vec![]));
            }
            Question::Blocks { .. } => unreachable!("a survey asks for no blocks"),
        }
    }
    assert!(survey.is_done());
    let spaces = survey.spaces().expect("known");
    let differing = found.iter().map(|found| (found.space.clone(), found.index)).collect();
    let back = Diff::from_outline(local, spaces, &differing);
    let blocks = found.into_iter().map(|found| {
        let there = remote.space(found.space.as_str()).expect("found there");
        assert_eq!(there.block_digest(found.index), found.digest);
        ((found.space, found.index), there.block(found.index).cloned())
    });
    (Diff::to_outline(local, spaces, blocks.collect()), back)
}

#[test]
fn an_outline_that_does_not_fit_the_root_is_a_lie() {
    let plain = Plain::from([("a".into(), vec![1; 5000]), ("b".into(), vec![2; 10])]);
    let image = image_of(&plain);
    let mut lies = vec![image.outline(); 4];
    lies[0][0].len += 1;
    lies[1][1].tree.0[0] ^= 1;
    lies[2].pop();
    lies[3].swap(0, 1);
    for lie in lies {
        let mut survey = Survey::new(Image::empty(), image.root());
        assert_eq!(survey.outline(lie), Err(Lie));
        assert!(!survey.is_done());
    }
}

#[test]
fn a_question_that_got_no_answer_is_asked_again() {
    let image = image_of(&Plain::from([("a".into(), vec![1; 40 * BLOCK])]));
    let mut survey = Survey::new(Image::empty(), image.root());
    assert_eq!(survey.ask(), Some(Question::Outline));
    assert_eq!(survey.ask(), None, "it is under way");
    survey.give_back(&Question::Outline);
    assert_eq!(survey.ask(), Some(Question::Outline));
    assert_eq!(survey.outline(image.outline()), Ok(vec![]));
    let nodes = survey.ask().expect("the node at the top");
    assert_eq!(survey.ask(), None);
    survey.give_back(&nodes);
    assert_eq!(survey.ask(), Some(nodes));
}

#[test]
fn a_wrong_root_changes_nothing() {
    let mut image = image_of(&Plain::from([("a".into(), vec![7; 9000])]));
    let before = image.clone();
    let mut builder = DiffBuilder::new(Some(image.clone()));
    builder.block("a", 1, &[9; 100]);
    let diff = builder.finish();
    assert_eq!(image.apply(&diff, before.root()), Err(ApplyError::WrongRoot));
    assert_eq!(image.read_all("a"), before.read_all("a"));
    let mut after = image.clone();
    after.apply_unrooted(&diff).expect("fits");
    assert_eq!(image.apply(&diff, after.root()), Ok(()));
}

#[test]
fn limits_are_kept_and_change_nothing() {
    let mut image = image_of(&Plain::from([("a".into(), vec![7; 9000])]));
    let before = image.clone();
    let of = |write: Write, len| Diff::of_blocks(SpaceName::new("a").unwrap(), len, vec![write]);
    let past_end = of((3, Block::new(&[1])), 9000);
    let in_tail = of((2, Block::new(&[1; BLOCK])), 9000);
    let mut too_large = DiffBuilder::new(None);
    too_large.resize("b", STATE_MAX.0 - 8999);
    let mut too_many = DiffBuilder::new(None);
    for n in 0..SPACES_MAX {
        too_many.resize(&format!("s{n}"), 1);
    }
    for (diff, error) in [
        (past_end, ApplyError::PastEnd),
        (in_tail, ApplyError::PastEnd),
        (too_large.finish(), ApplyError::TooLarge),
        (too_many.finish(), ApplyError::TooManySpaces),
    ] {
        assert_eq!(image.apply_unrooted(&diff), Err(error));
        assert_eq!(image, before);
    }
    assert_eq!(image.apply_unrooted(&of((2, Block::new(&[1; 9000 - 2 * BLOCK])), 9000)), Ok(()));
}

#[test]
fn the_largest_state_of_zeros_costs_nothing() {
    let mut builder = DiffBuilder::new(None);
    builder.resize("memory.0", STATE_MAX.0).block("memory.0", (1 << 20) - 1, &[1; BLOCK]);
    let mut image = Image::empty();
    image.apply_unrooted(&builder.finish()).expect("just fits");
    let space = image.space("memory.0").expect("made");
    assert_eq!(space.blocks().map(|(index, _)| index).collect::<Vec<_>>(), [(1 << 20) - 1]);
    assert_eq!(space.levels(), LEVELS_MAX);
    assert_eq!(Diff::of(&image).changed_blocks(), 1);
    let mut small = DiffBuilder::new(Some(image.clone()));
    small.resize("memory.0", 1);
    image.apply_unrooted(&small.finish()).expect("fits");
    assert_eq!(image.root(), image_of(&Plain::from([("memory.0".into(), vec![0])])).root());
}

#[test]
fn reading_stays_within_a_space() {
    let image = image_of(&Plain::from([("a".into(), (0..9000).map(|n| n as u8).collect())]));
    assert_eq!(image.read("a", 4094..4098), Some(vec![254, 255, 0, 1]));
    assert_eq!(image.read("a", 8999..9001), None);
    assert_eq!(image.read("a", 9000..9000), Some(vec![]));
    assert_eq!(image.read("b", 0..0), None);
    let reversed = core::ops::Range { start: 2, end: 1 };
    assert_eq!(image.read("a", reversed), None);
}

#[test]
fn names_are_checked() {
    let longest = "x".repeat(SPACE_NAME_MAX);
    let too_long = "x".repeat(SPACE_NAME_MAX + 1);
    for (text, good) in [
        ("memory.0", true),
        ("", false),
        ("a b", false),
        ("é", false),
        (&longest, true),
        (&too_long, false),
    ] {
        assert_eq!(SpaceName::new(text).is_ok(), good, "{text:?}");
    }
}

/// A small diff with every kind of record.
fn sample() -> (Image, Diff) {
    let base = image_of(&Plain::from([
        ("b".into(), vec![1; 2 * BLOCK]),
        ("gone".into(), vec![1]),
        ("same".into(), vec![1]),
    ]));
    let mut builder = DiffBuilder::new(Some(base.clone()));
    builder.bytes("a", b"globals").block("b", 0, &[]).block("b", 1, &[2; BLOCK]);
    builder.bytes("same", &[1]).drop_space("gone").drop_space("never");
    (base, builder.finish())
}

#[test]
fn encoded_bytes_are_golden() {
    let (base, diff) = sample();
    assert_eq!((diff.changed_blocks(), diff.raw_bytes()), (3, ByteCount(2 * BLOCK as u64)));
    // Compression may get better and give other bytes; what was written once must stay readable.
    assert_eq!(Diff::decode(&[Part::new(unhex(GOLDEN_PART))]), Ok(diff.clone()));
    let mut image = base;
    image.apply_unrooted(&diff).expect("fits");
    assert_eq!(hex(&image.root().0), GOLDEN_ROOT);
    assert_eq!(hex(&Image::empty().root().0), GOLDEN_EMPTY);
}

const GOLDEN_PART: &str = concat!(
    "01013b20000043010161000100130708001003080070676c6f62616c730b000f0200ffffffffffffffff",
    "fffffffffffffff1530101620020fa0f03080010020f006f0301000000020100ffffffffffffffffffff",
    "fffffffffffb600004676f6e65",
);
const GOLDEN_ROOT: &str = "ae513db3eb2ae74a64c348251101c1f161c432e1b92bc6db163565d641569331";
const GOLDEN_EMPTY: &str = "8b76988bdd4c2d2bf03f93cf21dd5f15cc387022b6543e06ae724609be57483d";

#[test]
fn damaged_parts_are_refused_or_read_as_something_else_but_never_panic() {
    let (base, diff) = sample();
    let good = diff.encode().remove(0);
    let mut dice = Dice::new(1);
    let mut refused = 0;
    for _ in 0..4000 {
        let mut bytes = good.bytes().to_vec();
        match dice.below(4) {
            0 => bytes.truncate(dice.below(bytes.len() as u64) as usize),
            1 => bytes.extend(dice.bytes(3)),
            _ => {
                for _ in 0..1 + dice.below(3) {
                    let at = dice.below(bytes.len() as u64) as usize;
                    bytes[at] ^= 1 << dice.below(8);
                }
            }
        }
        match Diff::decode(&[Part::new(bytes)]) {
            Err(_) => refused += 1,
            Ok(other) => {
                // Compression has no checksum: the root tells.
                let mut image = base.clone();
                let _ = image.apply_unrooted(&other);
            }
        }
    }
    assert!(refused > 1500, "only {refused} refused");
}

#[test]
fn lying_lengths_are_refused_before_allocation() {
    let claims = |method, len: u32, rest: &[u8]| {
        let mut bytes = vec![1, method];
        bytes.extend(len.to_le_bytes());
        bytes.extend(rest);
        Diff::decode(&[Part::new(bytes)])
    };
    assert_eq!(claims(1, u32::MAX, &[0]), Err(PartError::TooLong));
    assert_eq!(claims(0, 9, &[0]), Err(PartError::Malformed));
    assert_eq!(claims(1, 9, &[0]), Err(PartError::Compression));
    assert_eq!(claims(7, 1, &[0]), Err(PartError::Malformed));
    assert_eq!(claims(0, 1, &[9]), Err(PartError::Malformed));
    assert_eq!(claims(0, 5, &[2, 0, 0, 0, 0]), Err(PartError::Malformed), "a block of no space");
    assert_eq!(Diff::decode(&[Part::new(vec![2; 9])]), Err(PartError::Version));
    assert_eq!(Diff::decode(&[Part::new(vec![])]), Err(PartError::Malformed));
    assert_eq!(Diff::decode(&[Part::new(vec![1; PART_MAX + 1])]), Err(PartError::TooLong));
    assert_eq!(Diff::decode(&[]), Err(PartError::TooLong));
    assert!(Assembler::new(PARTS_MAX + 1).is_none());
}

#[test]
fn parts_of_different_diffs_don_t_mix() {
    let image = image_of(&Plain::from([("a".into(), Dice::new(5).bytes(9 * BLOCK))]));
    let other = image_of(&Plain::from([("a".into(), Dice::new(6).bytes(8 * BLOCK))]));
    let (one, two) = (Diff::of(&image), Diff::of(&other));
    let (cuts, cuts_two) = (one.cut(CUT_MIN), two.cut(CUT_MIN));
    let mut mixed = vec![one.encode_part(&cuts, 0), two.encode_part(&cuts_two, 1)];
    assert_eq!(Diff::decode(&mixed), Err(PartError::OutOfOrder));
    mixed = vec![one.encode_part(&cuts, 1), one.encode_part(&cuts, 0)];
    assert_eq!(Diff::decode(&mixed), Err(PartError::OutOfOrder));
}

#[test]
fn parts_travel_through_serde_within_their_limit() {
    let part = Part::new(vec![5; 300]);
    let bytes = jizoku_types::encode(&part);
    assert_eq!(jizoku_types::decode::<Part>(&bytes), Ok(part));
    let too_long = jizoku_types::encode(&Part::new(vec![5; PART_MAX + 1]));
    assert!(jizoku_types::decode::<Part>(&too_long).is_err());
    assert_eq!(Digest([0xab; 32]).to_string(), "abababababababab");
}

#[test]
fn incompressible_bytes_are_stored_raw_and_fit() {
    let image = image_of(&Plain::from([("a".into(), Dice::new(9).bytes(200 * BLOCK))]));
    let parts = Diff::of(&image).encode();
    assert!(parts.iter().all(|part| part.bytes().len() <= PART_MAX && part.bytes()[1] == 0));
    assert_eq!(parts.len(), 4, "63 blocks in a part");
    assert_eq!(Diff::decode(&parts), Ok(Diff::of(&image)));
}
