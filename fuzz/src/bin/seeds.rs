//! Writes inputs to begin with: `seeds FOLDER` makes FOLDER/TARGET/seed-N.
//! `seeds list` prints the targets' names.

use std::path::Path;

fn main() -> std::io::Result<()> {
    let folder = std::env::args().nth(1).expect("usage: seeds FOLDER | seeds list");
    if folder == "list" {
        for (name, _) in jizoku_fuzz::TARGETS {
            println!("{name}");
        }
        return Ok(());
    }
    for (number, (name, bytes)) in jizoku_fuzz::seeds().into_iter().enumerate() {
        let place = Path::new(&folder).join(name);
        std::fs::create_dir_all(&place)?;
        std::fs::write(place.join(format!("seed-{number}")), bytes)?;
    }
    Ok(())
}
