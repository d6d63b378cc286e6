//! The page is built by a script of its own; the server compiles without it too, and then says so where the page would be.

fn main() {
    let dist = concat!(env!("CARGO_MANIFEST_DIR"), "/../frontend/dist");
    // Where it can't be made, the embedding macro says so with the folder's name.
    let _ = std::fs::create_dir_all(dist);
    println!("cargo:rerun-if-changed={dist}");
}
