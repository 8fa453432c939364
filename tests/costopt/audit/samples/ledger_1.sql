BEGIN TRANSACTION;
CREATE TABLE alerts (
    account TEXT NOT NULL, period TEXT NOT NULL, share REAL NOT NULL, PRIMARY KEY (account, period, share)
    ) STRICT, WITHOUT ROWID;
CREATE TABLE attempts (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, size INTEGER NOT NULL,
    id TEXT, request_id TEXT, model TEXT, provider TEXT, started REAL NOT NULL, latency_s REAL, first_token_s REAL, status TEXT, error TEXT, cache TEXT, route TEXT, route_why TEXT, batch TEXT, service_tier TEXT, session TEXT, tenant TEXT, prompt_hash TEXT, question_hash TEXT, prompt TEXT, tools TEXT, answer TEXT, cost_source TEXT, cost TEXT, avoided_cost TEXT, baseline_cost TEXT, usage_estimated INTEGER NOT NULL, streamed INTEGER NOT NULL, tags TEXT, input_tokens INTEGER, output_tokens INTEGER, cached_tokens INTEGER, cache_write_tokens INTEGER, cache_write_1h_tokens INTEGER, reasoning_tokens INTEGER, avoided_input_tokens INTEGER, avoided_output_tokens INTEGER, avoided_cached_tokens INTEGER, avoided_cache_write_tokens INTEGER, avoided_cache_write_1h_tokens INTEGER, avoided_reasoning_tokens INTEGER, shape_system INTEGER, shape_history INTEGER, shape_question INTEGER, shape_tools INTEGER, shape_tools_offered INTEGER, shape_tools_called INTEGER, shape_system_hash TEXT) STRICT;
INSERT INTO "attempts" VALUES(1,540,'plain','plain','gpt-4o-mini','openai',1795161600.0,NULL,NULL,'ok',NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,'given','0.0002',NULL,NULL,0,0,NULL,900,100,0,0,0,0,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL);
INSERT INTO "attempts" VALUES(2,545,'hit','hit','gpt-4o-mini','openai',1795161601.0,NULL,NULL,'ok',NULL,'semantic',NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,'cache','0','0.0002',NULL,0,0,NULL,0,0,0,0,0,0,900,100,0,0,0,0,NULL,NULL,NULL,NULL,NULL,NULL,NULL);
INSERT INTO "attempts" VALUES(3,561,'r1-0','r1','gpt-4o-mini','openai',1795161602.0,NULL,NULL,'error','rate limit',NULL,'gpt-4o-mini','score',NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,'router','0',NULL,NULL,0,0,NULL,900,0,0,0,0,0,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL);
INSERT INTO "attempts" VALUES(4,556,'r1-1','r1','gpt-4o','openai',1795161603.0,NULL,NULL,'ok',NULL,NULL,'gpt-4o','rate limit',NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,'router','0.00325',NULL,'0.00325',0,0,NULL,900,100,0,0,0,0,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL);
INSERT INTO "attempts" VALUES(5,564,'r2-0','r2','gpt-4o-mini','openai',1795248000.0,NULL,NULL,'ok',NULL,NULL,'gpt-4o-mini','score',NULL,NULL,NULL,'acme',NULL,NULL,NULL,NULL,NULL,'router','0.0002',NULL,'0.00325',0,0,NULL,900,100,0,0,0,0,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL);
CREATE TABLE days (
    day INTEGER NOT NULL, tenant TEXT NOT NULL, provider TEXT NOT NULL, model TEXT NOT NULL, routed INTEGER NOT NULL,
    attempts INTEGER NOT NULL, failed INTEGER NOT NULL, cache_hits INTEGER NOT NULL, batched INTEGER NOT NULL, estimated INTEGER NOT NULL, unpriced INTEGER NOT NULL, input_tokens INTEGER NOT NULL, output_tokens INTEGER NOT NULL, cached_tokens INTEGER NOT NULL, cache_write_tokens INTEGER NOT NULL, reasoning_tokens INTEGER NOT NULL, cost TEXT NOT NULL, avoided_cost TEXT NOT NULL,
    PRIMARY KEY (day, tenant, provider, model, routed)) STRICT, WITHOUT ROWID;
INSERT INTO "days" VALUES(20777,'','openai','gpt-4o',1,1,0,0,0,0,0,900,100,0,0,0,'0.00325','0');
INSERT INTO "days" VALUES(20777,'','openai','gpt-4o-mini',0,2,0,1,0,0,0,900,100,0,0,0,'0.0002','0.0002');
INSERT INTO "days" VALUES(20777,'','openai','gpt-4o-mini',1,1,1,0,0,0,0,900,0,0,0,0,'0','0');
INSERT INTO "days" VALUES(20778,'acme','openai','gpt-4o-mini',1,1,0,0,0,0,0,900,100,0,0,0,'0.0002','0');
CREATE TABLE facts (name TEXT PRIMARY KEY, value REAL NOT NULL) STRICT, WITHOUT ROWID;
INSERT INTO "facts" VALUES('bytes',2766.0);
INSERT INTO "facts" VALUES('pruned',0.0);
INSERT INTO "facts" VALUES('pruned_until',0.0);
INSERT INTO "facts" VALUES('rows',5.0);
CREATE TABLE held (
    id TEXT PRIMARY KEY, account TEXT NOT NULL, period TEXT NOT NULL, amount TEXT NOT NULL, until REAL NOT NULL
    ) STRICT, WITHOUT ROWID;
CREATE TABLE settled (
    account TEXT NOT NULL, period TEXT NOT NULL, amount TEXT NOT NULL, PRIMARY KEY (account, period)
    ) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX attempts_id ON attempts (id);
CREATE INDEX attempts_started ON attempts (started, seq);
CREATE INDEX held_account ON held (account, period);
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('attempts',5);
COMMIT;
PRAGMA user_version = 1;
