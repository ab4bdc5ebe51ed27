//! Tests on traces whose delays are known.

use super::*;
