# Perl's DBD::Pg, as a script uses it: perl dbd.pl CONNECTIONS WORD; where and who stand in PGHOST and the like, which libpq reads.
use strict;
use warnings;
use DBI;

my ($count, $word) = @ARGV;
my @opened = map { DBI->connect("dbi:Pg:", undef, undef, { RaiseError => 1 }) } 1 .. $count;
for my $connection (@opened) {
    my ($answer) = $connection->selectrow_array("select ?::text", undef, $word);
    die "the database answered $answer" if $answer ne $word;
}
$_->disconnect for @opened;
