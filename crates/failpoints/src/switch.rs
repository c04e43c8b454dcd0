/// Something that a test turns on and off: a rule that is not kept meanwhile, or a fault that a device has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Switch {
    /// Its name.
    pub name: &'static str,
    /// What the code does instead.
    pub does: &'static str,
}

impl Switch {
    /// Whether it is on.
    #[inline]
    pub fn is_active(&self) -> bool {
        #[cfg(feature = "active")]
        fail::fail_point!(self.name, |_| true);
        false
    }
}

macro_rules! switches {
    ($($id:ident $name:literal $does:literal;)*) => {
        $(
            #[doc = $does]
            pub const $id: $crate::switch::Switch = $crate::switch::Switch { name: $name, does: $does };
        )*
        /// All of them.
        pub const ALL: &[$crate::switch::Switch] = &[$($id),*];
    };
}

pub(crate) use switches;
