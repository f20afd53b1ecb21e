//! Files of PostgreSQL that are not where they were: deleted, or its data folder is another one.

use super::{By, Fault, Kind, Rule, Severity};

pub(super) const RULES: &[Rule] = &[
    Rule {
        name: "postgres-file-missing",
        means: "A file that PostgreSQL keeps data in is gone",
        kind: Kind::DataCorrupt,
        severity: Severity::Critical,
        speaks_for: &[Fault::CorruptionReported],
        by: By::Anyone,
        needs: "could not open file \"",
        pattern: r#"(?:ERROR|FATAL|PANIC):  could not open file "(?:base|global|pg_tblspc|pg_xact|pg_multixact)/[^"]*": No such file or directory"#,
        unless: "",
        examples: &[
            r#"pg 2026-11-23 21:19:48.123 UTC [77] FATAL:  could not open file "global/pg_filenode.map": No such file or directory"#,
            r#"pg [9] ERROR:  could not open file "base/16385/16390": No such file or directory"#,
        ],
        not: &[
            r#"pg [9] ERROR:  could not open file "/tmp/import.csv" for reading: No such file or directory"#,
            r#"pg [9] ERROR:  could not open file "pg_wal/000000010000000000000001": No such file or directory"#,
        ],
        source: "PostgreSQL src/backend/storage/smgr/md.c, utils/cache/relmapper.c",
    },
    Rule {
        name: "postgres-database-missing",
        means: "The folder of a database of PostgreSQL is gone",
        kind: Kind::DataCorrupt,
        severity: Severity::Critical,
        speaks_for: &[Fault::CorruptionReported],
        by: By::Anyone,
        needs: "The database subdirectory \"",
        pattern: r#"DETAIL:  The database subdirectory "[^"]*" is missing\."#,
        unless: "",
        examples: &[r#"pg [9] DETAIL:  The database subdirectory "base/16385" is missing."#],
        not: &[r#"pg [9] FATAL:  database "orders" does not exist"#],
        source: "PostgreSQL src/backend/utils/init/postinit.c",
    },
    Rule {
        name: "postgres-folder-replaced",
        means: "PostgreSQL gives up, its data folder was deleted or is another one",
        kind: Kind::DataCorrupt,
        severity: Severity::Critical,
        speaks_for: &[Fault::CorruptionReported, Fault::AppDown],
        by: By::Anyone,
        needs: "data directory lock file is invalid",
        pattern: r"LOG:  performing immediate shutdown because data directory lock file is invalid",
        unless: "",
        examples: &["pg [9] LOG:  performing immediate shutdown because data directory lock file is invalid"],
        not: &["pg [9] ERROR:  the data directory lock file is invalid, says somebody"],
        source: "PostgreSQL src/backend/postmaster/postmaster.c",
    },
];
