//! TPM firmware that is known to be weak, by its makers' advisories.
//!
//! | maker | firmware | what | advisory |
//! |---|---|---|---|
//! | Infineon | 5.x before 5.62, 7.x before 7.62 | CVE-2017-15361, ROCA | infineon.com/TPM-update, Microsoft ADV170012 |
//! | Intel PTT | 11.x, 12.0 before the numbers below | CVE-2019-11090, TPM-FAIL | INTEL-SA-00241 |
//! | STMicroelectronics ST33TPHF2* | 71, 73 and 74, those below | CVE-2019-16863, TPM-FAIL | st.com/content/st_com/en/campaigns/tpm-update.html |
//! | Nuvoton NPCT75x | 7.2.0.1, 7.2.0.2, 7.2.1.0 | CVE-2020-25082 | Nuvoton SA-002 |
//! | Nuvoton NPCT7xx | 7.x before 7.2.4.0 | CVE-2026-6923 | the CVE's record, Nuvoton being its source |
//! | Nuvoton NPCT65x | 1.3.0.1, 1.3.1.0, 1.3.2.8 | CVE-2023-1017 | Nuvoton SA-003 |
//!
//! Intel's numbers have not been compared with the text of its advisory yet, and Infineon's are those of a list by
//! others; the rest is the makers'.
//!
//! Versions are TPM2_PT_FIRMWARE_VERSION_1 and _2, each two numbers of 16 bits, as all these makers
//! use them. Intel's newer PTTs count from 300 on and have no row: their number says nothing of the
//! firmware of the management engine. Who is not in the table is not thereby good.

/// What a weakness gives away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weakness {
    /// The private half of RSA keys that it made follows from the public one.
    Rsa,
    /// Who measures how long signatures take, over a network even, learns the key of ECDSA.
    Timing,
    /// Who has the chip in his hands learns the key of an elliptic curve.
    Physical,
    /// Who may send it commands stops it.
    Denial,
}

/// A weakness of a firmware.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Advisory {
    /// Its number, and its name where it has one.
    pub name: &'static str,
    /// What it gives away.
    pub weakness: Weakness,
    /// The maker's advisory.
    pub source: &'static str,
}

/// A firmware's version: four numbers.
pub(super) type Version = [u16; 4];

/// Some versions of one maker's.
struct Row {
    maker: &'static str,
    which: Which,
    advisory: &'static Advisory,
}

enum Which {
    /// From the first, and before the second.
    Before(Version, Version),
    /// Those whose first numbers these are.
    These(&'static [&'static [u16]]),
}

const ROCA: Advisory = Advisory {
    name: "CVE-2017-15361 (ROCA)",
    weakness: Weakness::Rsa,
    source: "https://www.infineon.com/TPM-update",
};
const INTEL: Advisory = Advisory {
    name: "CVE-2019-11090 (TPM-FAIL)",
    weakness: Weakness::Timing,
    source: "INTEL-SA-00241",
};
const ST: Advisory = Advisory {
    name: "CVE-2019-16863 (TPM-FAIL)",
    weakness: Weakness::Timing,
    source: "https://www.st.com/content/st_com/en/campaigns/tpm-update.html",
};
const NUVOTON_ECDSA: Advisory = Advisory {
    name: "CVE-2020-25082",
    weakness: Weakness::Physical,
    source: "https://www.nuvoton.com/support/security/security-advisories/sa-002/",
};
const NUVOTON_ECDH: Advisory = Advisory {
    name: "CVE-2026-6923",
    weakness: Weakness::Physical,
    source: "https://www.cve.org/CVERecord?id=CVE-2026-6923",
};
const NUVOTON_WRITE: Advisory = Advisory {
    name: "CVE-2023-1017",
    weakness: Weakness::Denial,
    source: "https://www.nuvoton.com/support/security/security-advisories/sa-003/",
};

const TABLE: &[Row] = &[
    before("IFX", [5, 0, 0, 0], [5, 62, 0, 0], &ROCA),
    before("IFX", [7, 0, 0, 0], [7, 62, 0, 0], &ROCA),
    before("INTC", [11, 0, 0, 0], [11, 8, 70, 0], &INTEL),
    before("INTC", [11, 10, 0, 0], [11, 12, 70, 0], &INTEL),
    before("INTC", [11, 20, 0, 0], [11, 22, 70, 0], &INTEL),
    before("INTC", [12, 0, 0, 0], [12, 0, 45, 0], &INTEL),
    Row {
        maker: "STM",
        which: Which::These(&[
            &[71, 0],
            &[71, 4],
            &[71, 12],
            &[73, 0],
            &[73, 4],
            &[73, 5],
            &[73, 8],
            &[73, 9],
            &[74, 0],
            &[74, 4],
            &[74, 5],
            &[74, 8],
            &[74, 9],
            &[74, 16],
        ]),
        advisory: &ST,
    },
    Row {
        maker: "NTC",
        which: Which::These(&[&[7, 2, 0, 1], &[7, 2, 0, 2], &[7, 2, 1, 0]]),
        advisory: &NUVOTON_ECDSA,
    },
    before("NTC", [7, 0, 0, 0], [7, 2, 4, 0], &NUVOTON_ECDH),
    Row {
        maker: "NTC",
        which: Which::These(&[&[1, 3, 0, 1], &[1, 3, 1, 0], &[1, 3, 2, 8]]),
        advisory: &NUVOTON_WRITE,
    },
];

/// What is known to be wrong with a maker's firmware.
pub(super) fn of(maker: &str, version: Version) -> Vec<Advisory> {
    let its = TABLE.iter().filter(|row| row.maker == maker);
    let weak = its.filter(|row| row.which.has(version));
    weak.map(|row| *row.advisory).collect()
}

impl Which {
    fn has(&self, version: Version) -> bool {
        match self {
            Which::Before(first, fixed) => *first <= version && version < *fixed,
            Which::These(all) => all.iter().any(|one| version.starts_with(one)),
        }
    }
}

const fn before(
    maker: &'static str,
    first: Version,
    fixed: Version,
    advisory: &'static Advisory,
) -> Row {
    Row {
        maker,
        which: Which::Before(first, fixed),
        advisory,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(maker: &str, version: Version) -> Vec<&'static str> {
        of(maker, version).iter().map(|one| one.name).collect()
    }

    /// The last of each that is weak, and the first that is not. Seen to fail with `<=` for the `<` in
    /// `has`, with `starts_with` turned round, and with the maker not compared.
    #[test]
    fn the_last_weak_one_and_the_first_good_one() {
        for (maker, weak, good, name) in [
            ("IFX", [5, 61, 9, 9], [5, 62, 0, 0], "ROCA"),
            ("IFX", [7, 61, 2785, 0], [7, 62, 3126, 0], "ROCA"),
            (
                "INTC",
                [11, 8, 65, 3590],
                [11, 8, 70, 3626],
                "CVE-2019-11090",
            ),
            ("INTC", [11, 12, 65, 0], [11, 12, 70, 0], "CVE-2019-11090"),
            ("INTC", [12, 0, 40, 0], [12, 0, 45, 0], "CVE-2019-11090"),
            (
                "STM",
                [73, 8, 17568, 5511],
                [73, 64, 17568, 6659],
                "CVE-2019-16863",
            ),
            ("STM", [74, 16, 0, 0], [74, 20, 0, 0], "CVE-2019-16863"),
            ("NTC", [7, 2, 3, 1], [7, 2, 4, 1], "CVE-2026-6923"),
            ("NTC", [1, 3, 2, 8], [1, 3, 2, 20], "CVE-2023-1017"),
        ] {
            let found = names(maker, weak);
            assert!(
                found.iter().any(|one| one.contains(name)),
                "{maker} {weak:?}"
            );
            assert_eq!(names(maker, good), [""; 0], "{maker} {good:?}");
        }
        assert_eq!(names("NTC", [7, 2, 1, 0]).len(), 2);
        assert_eq!(names("IBM", [7, 61, 0, 0]), [""; 0]);
        assert_eq!(names("INTC", [403, 1, 0, 0]), [""; 0]);
    }
}
