pub mod keys;
pub mod packet;
pub mod path;
pub mod reflect;
