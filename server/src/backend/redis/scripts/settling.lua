-- Lets a script that else only reads settle the namespace first.
local function stand()
  local h, now, identity = settled()
  return h, now, false, identity
end
