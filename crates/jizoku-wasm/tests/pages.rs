//! How captures grow: with what changed, not with what there is.

use jizoku_wasm::Tracking;

use crate::support::guests::example;
use crate::support::house::House;
use crate::support::kv::{ask, request};

/// So many keys with values of 1000 bytes.
pub(crate) fn fill(house: &mut House, keys: usize) -> jizoku_types::ConnId {
    let conn = house.connect(0);
    let value = "v".repeat(1000);
    let mut bytes = Vec::new();
    for key in 0..keys {
        bytes.extend(request(&["SET", &format!("key:{key:06}"), &value]));
        if bytes.len() > 200_000 {
            house.send(conn, &std::mem::take(&mut bytes));
            let wanted = 5 * (key + 1);
            house.serve_until(|house| house.received(conn) >= wanted);
        }
    }
    house.send(conn, &bytes);
    house.serve_until(|house| house.received(conn) >= 5 * keys);
    house.clients.get_mut(&conn).unwrap().received.clear();
    conn
}

#[test]
fn a_small_change_makes_a_small_diff() {
    let mut house = House::new(&example("kv"), false);
    let conn = fill(&mut house, 8_000);
    house.checkpoint();
    let memory = house.image.space("memory.0").unwrap().len();
    assert!(memory > 8_000_000, "{memory}");
    ask(&mut house, conn, &["SET", "key:000017", "other"], "+OK\r\n");
    let (_, changed) = house.checkpoint();
    assert!(changed < 40, "{changed} blocks of {}", memory / 4096);
    house.fail_over();
    ask(&mut house, conn, &["GET", "key:000017"], "$5\r\nother\r\n");
    ask(&mut house, conn, &["STRLEN", "key:000018"], ":1000\r\n");
    ask(&mut house, conn, &["SET", "key:000018", "other"], "+OK\r\n");
    let (_, changed) = house.checkpoint();
    assert!(changed < 40, "{changed} blocks after a restore");
}

#[test]
fn the_kernels_way_is_used_where_it_works() {
    let house = House::new(&example("kv"), false);
    let engine = crate::support::guests::engine(None);
    let mut house = house;
    house.until_running();
    assert_eq!(house.instance.as_ref().unwrap().tracking(), engine.tracking());
    let forced = crate::support::guests::engine(Some(Tracking::Compare));
    assert_eq!(forced.tracking(), Tracking::Compare);
}
