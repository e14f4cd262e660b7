# Ruby's pg, as a script uses it: ruby pg.rb CONNECTIONS WORD; where and who stand in PGHOST and the like, which libpq reads.
require "pg"

count, word = ARGV
opened = Array.new(Integer(count)) { PG.connect }
opened.each do |connection|
  answer = connection.exec_params("select $1::text", [word]).getvalue(0, 0)
  raise "the database answered #{answer}" if answer != word
end
opened.each(&:close)
