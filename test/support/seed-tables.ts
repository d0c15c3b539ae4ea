/** Tables and entries of the servers that the layouts "forwardings", "virtual" and "people" are for. Passwords are made as their tutorials do. */

import { SECRET } from './directory.ts';

export const FORWARDINGS = `
CREATE TABLE domains (domain varchar(50) NOT NULL, PRIMARY KEY (domain));
CREATE TABLE forwardings (source varchar(80) NOT NULL, destination TEXT NOT NULL, PRIMARY KEY (source));
CREATE TABLE users (email varchar(80) NOT NULL, password varchar(128) NOT NULL, PRIMARY KEY (email));
CREATE TABLE transport (domain varchar(128) NOT NULL DEFAULT '', transport varchar(128) NOT NULL DEFAULT '', UNIQUE KEY domain (domain));
INSERT INTO domains VALUES ('olimpus.example'), ('asgard.example');
INSERT INTO users VALUES ('zeus@olimpus.example', ENCRYPT('thunder', '$6$ambrosia')), ('Hera@olimpus.example', ENCRYPT('peacock', '$6$ambrosia'));
INSERT INTO forwardings VALUES
  ('info@olimpus.example', 'zeus@olimpus.example, hera@olimpus.example'),
  ('@olimpus.example', 'zeus@olimpus.example'),
  ('@asgard.example', '@olimpus.example'),
  ('away@olimpus.example', 'someone@valhalla.example'),
  ('round@olimpus.example', 'about@olimpus.example'),
  ('about@olimpus.example', 'round@olimpus.example');
`;

export const VIRTUAL = `
CREATE TABLE virtual_domains (id int NOT NULL AUTO_INCREMENT, name varchar(50) NOT NULL, PRIMARY KEY (id));
CREATE TABLE virtual_users (id int NOT NULL AUTO_INCREMENT, domain_id int NOT NULL, password varchar(106) NOT NULL, email varchar(100) NOT NULL,
  quota bigint, PRIMARY KEY (id), UNIQUE KEY email (email));
CREATE TABLE virtual_aliases (id int NOT NULL AUTO_INCREMENT, domain_id int NOT NULL, source varchar(100) NOT NULL, destination varchar(100) NOT NULL,
  PRIMARY KEY (id));
INSERT INTO virtual_domains (name) VALUES ('olimpus.example'), ('asgard.example');
INSERT INTO virtual_users (domain_id, password, email, quota) VALUES
  (1, ENCRYPT('thunder', CONCAT('$6$', SUBSTRING(SHA(RAND()), -16))), 'zeus@olimpus.example', 41943040),
  (1, ENCRYPT('peacock', CONCAT('$6$', SUBSTRING(SHA(RAND()), -16))), 'hera@olimpus.example', NULL);
INSERT INTO virtual_aliases (domain_id, source, destination) VALUES
  (1, 'info@olimpus.example', 'zeus@olimpus.example'),
  (1, 'info@olimpus.example', 'hera@olimpus.example'),
  (1, 'thunder@olimpus.example', 'zeus+weather@olimpus.example'),
  (1, 'away@olimpus.example', 'someone@valhalla.example');
`;

/** A user of MariaDB that may read what its queries read, and no passwords. */
export function readerFor(database: string, tables: readonly string[]): string {
  return [
    `CREATE USER IF NOT EXISTS 'postern'@'%' IDENTIFIED BY '${SECRET}', 'postern'@'localhost' IDENTIFIED BY '${SECRET}';`,
    ...tables.flatMap((table) =>
      ['%', 'localhost'].map(
        (host) =>
          `GRANT SELECT ${table.includes('(') ? table.slice(table.indexOf('(')) : ''} ON ${database}.${table.split(' ')[0] ?? ''} TO 'postern'@'${host}';`,
      ),
    ),
  ].join('\n');
}

export const PEOPLE_SUFFIX = 'dc=olimpus,dc=example';

export const PEOPLE = `dn: ${PEOPLE_SUFFIX}
objectClass: dcObject
objectClass: organization
o: Olimpus
dc: olimpus

dn: ou=people,${PEOPLE_SUFFIX}
objectClass: organizationalUnit
ou: people

dn: uid=zeus,ou=people,${PEOPLE_SUFFIX}
objectClass: inetOrgPerson
objectClass: posixAccount
uid: zeus
cn: Zeus
sn: Kronion
mail: zeus@olimpus.example
employeeNumber: 40M
uidNumber: 5001
gidNumber: 5000
homeDirectory: /home/vmail/zeus
userPassword: {SSHA}unread

dn: uid=hera,ou=people,${PEOPLE_SUFFIX}
objectClass: inetOrgPerson
objectClass: posixAccount
uid: hera
cn: Hera
sn: Kronia
mail: hera@olimpus.example
mail: queen@olimpus.example
uidNumber: 5002
gidNumber: 5000
homeDirectory: /home/vmail/hera

dn: uid=odysseus,ou=people,${PEOPLE_SUFFIX}
objectClass: inetOrgPerson
uid: odysseus
cn: Odysseus
sn:: T2R5c3PDqXVz
mail: odysseus@olimpus.example

dn: cn=info,ou=people,${PEOPLE_SUFFIX}
objectClass: inetOrgPerson
cn: info
sn: list
mail: info@olimpus.example
description: zeus@olimpus.example
description: hera@olimpus.example
`;
