"""Word lists that the small English pipeline does not know by itself."""

from __future__ import annotations


def word_set(text: str) -> frozenset[str]:
    """The words of a text as a set."""
    return frozenset(text.split())


FEMININE_NAMES = word_set(
    """
    abigail adele adriana agnes aisha alexandra alice alicia alison amanda amelia amy ana andrea angela anita ann anna
    anne annie audrey barbara beatrice becky bella beth betty brenda bridget camilla carla carmen carol caroline
    catherine cecilia chloe christina christine cindy claire clara claudia cynthia daisy dana daniela deborah debra
    denise diana diane donna doris dorothy edith eileen elena eleanor elisa elizabeth ella ellen emily emma erica erin
    esther eva evelyn fatima fiona frances gabriela gina gloria grace hannah harriet hazel heather heidi helen ingrid
    irene iris isabel isabella jane janet janice jasmine jean jennifer jenny jessica joan joanna joyce judith judy
    julia julie karen kate katherine kathleen katie kayla kelly kim laura lauren leah lena linda lisa liz lola lori
    louise lucia lucy luisa lydia maggie margaret maria marie marilyn marina marta martha mary maya megan mei melanie
    melissa mia michelle mila miranda molly monica nadia nancy naomi natalie natasha nicole nina nora norma olga
    olivia pamela patricia paula pauline penny phyllis priya rachel rebecca rosa rosie ruth sally samantha sandra sara
    sarah sharon sheila shirley sofia sonia sophia sophie stella stephanie susan sylvia tamara tanya teresa theresa
    tiffany tina tracy ursula valerie vanessa vera veronica vicky violet wendy yuki yvonne zoe
    """
)

MASCULINE_NAMES = word_set(
    """
    aaron abdul abraham adam adrian ahmed alan albert alejandro alex alexander alfred ali andrew andy anthony antonio
    arthur ben benjamin bernard bill billy bob bobby brad brandon brian bruce bryan carl carlos charles charlie chris
    christian christopher colin connor craig dan daniel dave david dennis derek diego donald douglas dylan ed eddie
    edward edwin elijah elliot eric ernest ethan eugene evan felix fernando francisco frank fred frederick gabriel
    gary geoffrey george gerald gilbert giovanni glenn gordon graham greg gregory gustave hans harold harry hassan
    hector henry herbert howard hugh hugo ian ibrahim isaac ivan jack jacob jacques jake james jamie jason javier jeff
    jeffrey jeremy jerry jesse jim jimmy joe joel john johnny jonathan jorge jose joseph josh joshua juan julian
    justin karl keith ken kenneth kevin kyle lars larry lawrence leo leon leonard liam louis lucas luigi luis luke
    malcolm manuel marc marco marcus mario mark martin marvin matt matteo matthew max michael miguel mike mohamed
    mohammed muhammad nathan neil nicholas nick noah norman oliver omar oscar otto pablo patrick paul pedro peter phil
    philip pierre rafael ralph ramon randy raymond ricardo richard rick robert roberto rodney roger ronald roy russell
    ryan sam samuel scott sean sebastian sergio simon stanley stefan stephen steve steven stuart ted terry theodore
    thomas tim timothy toby todd tom tommy tony travis tyler victor vincent vladimir walter wayne wei will william
    xavier yusuf zachary
    """
)

GIVEN_NAMES = FEMININE_NAMES | MASCULINE_NAMES

FEMININE_KIN = word_set(
    """
    sister mother mom mum mommy mummy daughter wife aunt auntie grandmother grandma granny niece girlfriend fiancée
    fiancee stepmother stepsister stepdaughter godmother granddaughter sister-in-law mother-in-law daughter-in-law
    """
)
MASCULINE_KIN = word_set(
    """
    brother father dad daddy son husband uncle grandfather grandpa grandad granddad nephew boyfriend fiancé stepfather
    stepbrother stepson godfather grandson brother-in-law father-in-law son-in-law
    """
)
KIN = (
    FEMININE_KIN
    | MASCULINE_KIN
    | word_set(
        """
        boss child cousin kid neighbor neighbour partner parent sibling spouse colleague coworker roommate flatmate
        housemate mentor classmate teammate manager teacher therapist doctor lawyer landlord assistant friend coach
        """
    )
)
"""Nouns that, possessed, stand for one particular person: "my sister"."""

FEMININE_TITLES = word_set("mrs ms miss madam lady queen princess")
MASCULINE_TITLES = word_set("mr sir lord king prince")

PETS = word_set(
    """
    animal bird bunny cat dog guinea-pig hamster horse kitten kitty parrot pet pony puppy pup rabbit turtle
    """
)

BELONGINGS = PETS | word_set(
    """
    allergy apartment bakery bicycle bike boat book business cabin café camera car collection company computer condo
    cottage degree diploma farm flat garden guitar gym house keyboard laptop license motorbike motorcycle newsletter
    passport phone piano podcast ranch restaurant shop startup store studio tattoo telescope tent truck van violin
    visa website yacht
    """
)
"""What "my …" tells of its owner beyond the sentence; "my day" and "my mind" tell nothing."""

WEEKDAYS = word_set(
    """
    monday tuesday wednesday thursday friday saturday sunday mondays tuesdays wednesdays thursdays fridays saturdays
    sundays
    """
)

ORGANIZATION_WORDS = word_set(
    """
    academy agency airlines airways alliance association associates bank bureau cafe café church clinic club college
    committee company conservatory cooperative corp corporation council department factory federation firm foundation
    gallery gmbh group gym hospital hotel inc institute labs laboratories library llc ltd ministry museum office
    orchestra party partners plc police press restaurant school shelter society solutions startup store studio studios
    supermarket systems team technologies trust union university
    """
)
ORGANIZATION_ENDINGS = ("corp", "soft", "tech", "bank", "labs", "works", "group")

PLACE_WORDS = word_set(
    """
    airport alley avenue bay beach boulevard bridge canyon castle cathedral city coast county creek desert district
    falls forest garden gardens harbor harbour hill hills island islands lake lane mountain mountains mount ocean
    palace park peak peninsula plaza port province ridge river road sea square state station street tower town trail
    valley village
    """
)
EVENT_WORDS = word_set(
    """
    anniversary award awards carnival championship christmas concert conference contest convention cup day diwali
    easter eid eve exhibition expo fair festival final games gala halloween hanukkah marathon match olympics parade
    party pride ramadan retreat summit thanksgiving tournament triathlon war wedding week workshop
    """
)
WORK_WORDS = word_set("album book film movie novel painting poem series show song symphony trilogy")

NOT_NAMES = word_set(
    """
    aha alright anyway aw aww awesome bye cheers congrats congratulations damn dear dude excellent god good goodness
    gosh great guys ha haha hahaha hello hey hi hmm hooray hurray lol morning nah nope oh ok okay omg oops ouch phew
    please sigh sorry sure thanks thank ugh uh um welcome well whoa woah wow xx xoxo yay yea yeah yep yes yikes yo yum
    glad gonna kinda wanna gotta super woohoo woo fyi btw imo tbh ya yup
    """
)
"""Words that the tagger takes for proper nouns in chat."""

VAGUE_NOUNS = word_set(
    """
    all amount blast folks going guys look ones thank thanks try worry anybody anyone anything aspect best bit bunch
    case chance choice couple course day days deal detail difference end ending everybody everyone everything example
    fact fault feeling few fun good half hand heart hell hope hour hours idea kind least life list lot lots luck
    matter mess mind minute minutes moment moments month months more most name need nobody none nothing number opinion
    others pair part people person piece place plenty point problem process question rest result second seconds self
    sense side situation somebody someone something sort start stuff thing things thought thoughts time times today
    tomorrow tonight ton tons top total turn type use view way ways week weekend weekends weeks while word words year
    years yesterday who what
    """
)
"""Nouns that say nothing outside their sentence; they never become entities."""

SKIPPED_PREPOSITIONS = word_set(
    "according amid because besides but despite due except instead than whether without 'til til v vs notwithstanding"
)
"""Prepositions whose object is not what the verb is about."""
