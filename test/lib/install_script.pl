#!/usr/bin/perl
# install_script.pl FILE...: what an attacker could use in a script of the
# extension, which runs as a superuser in a database that others write to. After
# the rules of pgspot: each finding is printed as file:line, and any makes it fail.
#
#   - the search_path is pinned by the first statement
#   - nothing is replaced or taken as it is found: CREATE OR REPLACE, IF NOT EXISTS
#   - no SECURITY DEFINER
#   - every object made or altered is qualified: cs. or cs_internal.
#   - functions that act outside a gate's frame pin their search_path, or name
#     everything by its schema, operators included (views over pg_catalog)
use strict;
use warnings;

my $findings = 0;

sub found
{
	my ($file, $line, $what) = @_;
	print "$file:$line: $what\n";
	$findings++;
}

for my $file (@ARGV)
{
	open my $f, '<', $file or die "$file: $!";
	my @lines = <$f>;
	close $f;

	# Comments are not looked at, strings are: bodies of functions are strings.
	my ($first, $n) = (undef, 0);
	for my $line (@lines)
	{
		$n++;
		my $code = $line =~ s/--.*//r;
		next if $code =~ /^\s*$/ || $code =~ /^\\echo/;
		$first //= [ $n, $code ];
		found($file, $n, 'CREATE OR REPLACE takes over what somebody else has made') if $code =~ /\bCREATE\s+OR\s+REPLACE\b/i;
		found($file, $n, 'IF NOT EXISTS trusts what it finds') if $code =~ /\bIF\s+NOT\s+EXISTS\s+[a-z_"]/i && $code =~ /\b(?:CREATE|ADD)\b/i;
		found($file, $n, 'SECURITY DEFINER') if $code =~ /\bSECURITY\s+DEFINER\b/i;
		found($file, $n, 'SET search_path other than pg_catalog, pg_temp') if $code =~ /\bSET\s+(?:LOCAL\s+)?search_path\b\s*(?:TO|=)\s*+(?!pg_catalog,\s*pg_temp)/i;
		if ($code =~ /^CREATE\s+(?:UNIQUE\s+|CONSTRAINT\s+)?(TABLE|VIEW|FUNCTION|PROCEDURE|AGGREGATE|TYPE|OPERATOR(?:\s+CLASS)?|DOMAIN|SEQUENCE|MATERIALIZED\s+VIEW)\s+(\S+)/)
		{
			my ($kind, $name) = ($1, $2);
			found($file, $n, "unqualified \L$kind\E $name") unless $name =~ /^"?(?:cs|cs_internal)"?\./;
		}
		elsif ($code =~ /^(?:ALTER|DROP|COMMENT\s+ON)\s+(TABLE|VIEW|FUNCTION|PROCEDURE|AGGREGATE|TYPE|OPERATOR(?:\s+CLASS)?|DOMAIN|SEQUENCE|COLUMN)\s+(\S+)/)
		{
			my ($kind, $name) = ($1, $2);
			found($file, $n, "unqualified \L$kind\E $name") unless $name =~ /^"?(?:cs|cs_internal)"?\./;
		}
		elsif ($code =~ /^CREATE\s+(?:UNIQUE\s+)?INDEX\b.*?\bON\s+(\S+)/ || $code =~ /^CREATE\s+TRIGGER\b.*?\bON\s+(\S+)/)
		{
			found($file, $n, "index or trigger on unqualified $1") unless $1 =~ /^(?:cs|cs_internal)\./;
		}
		found($file, $n, 'a cast or operator of its own for types of others') if $code =~ /^CREATE\s+CAST\s*\(\s*(?!cs\.|cs_internal\.)\S+\s+AS\s+(?!cs\.|cs_internal\.)/i;
		found($file, $n, 'a statement built from unquoted parts') if $code =~ /\bEXECUTE\s+'[^']*'\s*\|\|\s*(?!quote_|format)/i;
		found($file, $n, '%s of format() where a name or a value belongs in quotes') if $code =~ /format\('(?:GRANT|REVOKE|ALTER|DROP|CREATE)[^']*(?:ROLE|USER|SCHEMA) %s/i;
	}
	found($file, $first ? $first->[0] : 1, 'the first statement does not pin the search_path')
		unless $first && $first->[1] =~ /^SET\s+LOCAL\s+search_path\s+TO\s+pg_catalog,\s*pg_temp;/;

	# Views are read with the path of the reader when they are made only in names that were
	# resolved then: safe. SQL functions with a body as a string are not, so outside a gate
	# they need a pinned path; those in cs_internal are only reached in a frame.
	my $text = join '', @lines;
	while ($text =~ /^(CREATE (?:FUNCTION|PROCEDURE) (cs\.\w+)\b.*?;)$/msg)
	{
		my ($statement, $name, $at) = ($1, $2, $-[0]);
		my $line = 1 + (() = substr($text, 0, $at) =~ /\n/g);
		next unless $statement =~ /\bLANGUAGE\s+(?:sql|plpgsql)\b/i;
		next if $statement =~ /SET\s+search_path\s*(?:=|TO)\s*pg_catalog/i;
		next if $statement =~ /\bRETURN\b.*;$/s && $statement !~ /AS\s+\$/;    # a body parsed when it was made
		found($file, $line, "$name runs as the caller with an unpinned search_path");
	}
}
print "$findings findings\n" if $findings;
exit($findings ? 1 : 0);
