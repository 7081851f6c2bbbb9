//! thumbnet.
#![no_std]
